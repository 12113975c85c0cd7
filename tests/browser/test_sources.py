"""Adding, tagging, previewing, finding and refusing sources as a person does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from app.database import migrate, session_for
from app.liveness import started_at
from app.settings import Settings
from app.sources.catalogue import get_entry
from app.sources.service import keep
from tests.browser.conftest import Site, web_process

ROWS = [{"prompt": f"Combien font {i} + {i} ?", "answer": f"{2 * i}"} for i in range(1, 13)]


def upload(page: Page, site: Site, file: Path, **fields: str) -> None:
    page.goto(f"{site.url}/sources")
    page.get_by_role("button", name="Add a source").click()
    form = page.get_by_role("form", name="A file")
    form.get_by_label("File", exact=True).set_input_files(file)
    if fields:
        form.locator("summary").click()
    for label, value in fields.items():
        form.get_by_label(label).fill(value)
    form.get_by_role("button", name="Upload").click()


def sums(tmp_path: Path, name: str = "sommes.jsonl") -> Path:
    file = tmp_path / name
    rows = [*ROWS, {"prompt": "", "answer": "seul"}]
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return file


def test_a_file_is_added_tagged_previewed_and_found(page: Page, site: Site, tmp_path: Path) -> None:
    upload(page, site, sums(tmp_path), Name="sommes")
    expect(page.get_by_role("heading", level=1)).to_have_text("sommes")
    expect(page.get_by_text("Combien font 1 + 1 ?")).to_be_visible()
    expect(page.get_by_text("1 set aside", exact=True)).to_be_visible()
    page.get_by_text("The first 1 row").click()
    expect(page.get_by_role("row", name="13 the prompt is empty")).to_be_visible()
    page.get_by_role("link", name="Next").click()
    expect(page.get_by_text("Combien font 6 + 6 ?")).to_be_visible()

    page.get_by_role("combobox", name="Spoken language").fill("fr")
    page.get_by_role("combobox", name="Domain").fill("math")
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".sample").first).to_contain_text("French")
    expect(page.locator(".sample").first).to_contain_text("tag")

    page.goto(f"{site.url}/sources")
    page.get_by_label("Kind").select_option("upload")
    page.get_by_label("Domain").select_option("math")
    page.get_by_role("button", name="Find").click()
    row = page.get_by_role("row", name="sommes")
    expect(row).to_contain_text("French")
    expect(row).to_contain_text("ready")
    page.get_by_label("Words").fill("nothing like it")
    page.get_by_label("Words").press("Enter")
    expect(page.get_by_text("No source is like that.")).to_be_visible()


def test_a_bad_file_comes_back_with_what_was_typed(
    new_page: Callable[..., Page], site: Site, tmp_path: Path
) -> None:
    page = new_page(may_complain=True)  # Chromium reports the status 422.
    file = tmp_path / "cafés.csv"
    file.write_bytes(b"text\ncaf\xe9\n")
    upload(page, site, file, Name="cafes", Domain="business")
    expect(page.get_by_role("alert")).to_contain_text("line 2: byte 4 (0xE9) is not UTF-8")
    form = page.get_by_role("form", name="A file")
    expect(form.get_by_label("Domain")).to_have_value("business")
    form.get_by_label("Encoding").fill("latin-1")
    form.get_by_label("File", exact=True).set_input_files(file)
    form.get_by_role("button", name="Upload").click()
    expect(page.get_by_text("café", exact=True)).to_be_visible()


def test_without_scripts_and_at_phone_width(
    new_page: Callable[..., Page], site: Site, tmp_path: Path
) -> None:
    page = new_page(java_script_enabled=False, viewport={"width": 390, "height": 800})
    upload(page, site, sums(tmp_path, "seules.jsonl"))
    expect(page.get_by_role("heading", level=1)).to_have_text("seules")
    page.get_by_role("button", name="Disable").click()
    expect(page.get_by_text("not in use")).to_be_visible()
    page.get_by_text("Delete", exact=True).click()
    page.get_by_role("button", name="Delete seules").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sources")
    expect(page.get_by_role("link", name="seules")).to_have_count(0)


def test_the_pages_are_accessible_and_fit_a_phone(page: Page, site: Site) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    for address in ("/sources", "/sources/new", "/sources/permissive", "/sources/ultrachat-200k"):
        page.goto(site.url + address)
        page.wait_for_selector("html[data-htmx]")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, address


def test_a_fetch_is_followed_after_the_server_was_away(
    new_page: Callable[..., Page], tmp_path: Path
) -> None:
    page = new_page(may_complain=True)
    settings = Settings(data_dir=tmp_path / "data", assets="local")
    migrate(settings)

    def read(rows: int) -> None:
        with session_for(settings) as session:
            record = keep(session, get_entry(session, "ultrachat-200k"))
            pid = os.getpid()  # A process that is there for as long as the test.
            record.fetch_pid, record.fetch_started = pid, started_at(pid)
            record.fetch_read = rows
            session.add(record)
            session.commit()

    read(10)
    with web_process(settings.data_dir) as url:
        page.goto(f"{url}/sources/ultrachat-200k")
        expect(page.locator("#state")).to_contain_text("10 rows read")
        page.wait_for_selector("html[data-htmx]")
    page.wait_for_timeout(1500)  # It asks for the state every second, and nobody answers.
    read(20)
    with web_process(settings.data_dir, url.rpartition(":")[2]):
        expect(page.locator("#state")).to_contain_text("20 rows read")

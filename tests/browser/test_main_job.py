"""What a person does first, from the empty overview to a downloaded checkpoint, on the whole
product: web process, worker, broker, engine, the bundled corpus and the demo model."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.test_pages import overflow
from tests.integration.server import Server, serving

JOB_MS = 300_000


def tick_only(page: Page, group: str, facet: str, *names: str) -> None:
    """Choose these values of a facet in one slice, and no others."""
    slice_ = page.get_by_role("group", name=group)
    summary = re.compile(f"^\\s*{facet}")  # The slice's own summary holds its name.
    slice_.locator("summary", has_text=summary).click()
    box = slice_.locator("details", has=page.locator("summary", has_text=summary)).last
    box.get_by_role("button", name="tick none").click()
    for name in names:
        box.get_by_role("checkbox", name=re.compile(f"^{re.escape(name)} ")).check()


def compose(page: Page) -> None:
    """A small set from all three facets."""
    page.get_by_label("Name").first.fill("Three facets")
    page.get_by_label("Budget").fill("16000")
    tick_only(page, "Slice 1", "Programming language", "Rust", "COBOL", "Haskell")
    tick_only(page, "Slice 2", "Spoken language", "German", "Japanese")
    tick_only(page, "Slice 3", "Domain", "Law", "Medical")
    totals = page.locator("#totals")
    expect(totals).to_contain_text("of 16,000 tokens")
    expect(totals).to_contain_text("Programming language: 3 of")
    page.get_by_role("button", name="Save the set").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Three facets")
    expect(page.get_by_text("can be built")).to_be_visible()


def watch(page: Page) -> None:
    """See the job through to its end without reloading, but for one reload in its middle."""
    live = page.locator("#live")
    expect(live.locator(".step-done", has_text="Build the set")).to_be_visible(timeout=JOB_MS)
    page.reload()
    expect(live.locator(".step-done", has_text="Build the set")).to_be_visible()
    page.evaluate("window.same = true")
    expect(live.locator(".state")).to_have_text(
        re.compile("succeeded|failed|lost|cancelled"), timeout=JOB_MS
    )
    assert page.evaluate("window.same"), "the page was reloaded"


def download(page: Page, name: str, into: Path) -> tuple[str, str]:
    """Download one file as a person does; its SHA-256, and the one the page shows."""
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))
    with page.expect_download() as started:
        row.get_by_role("link").click()
    file = into / name
    started.value.save_as(file)
    shown = row.locator("code").get_attribute("title")
    assert shown
    return hashlib.sha256(file.read_bytes()).hexdigest(), shown


def run_through(page: Page, server: Server, tmp_path: Path) -> None:
    page.goto(server.address)
    page.get_by_role("button", name="Add a model").click()
    page.get_by_role("button", name="Add the bundled demo model").click()
    expect(page.get_by_text("MiniMaxM2ForCausalLM")).to_be_visible()
    page.get_by_role("button", name="Compose a set for it").click()
    page.wait_for_selector("html[data-htmx]")
    compose(page)
    page.get_by_role("button", name="Build, measure, quantize").click()
    expect(page.locator("#live")).to_be_visible()
    watch(page)
    expect(page.locator("#live .state")).to_have_text("succeeded")
    job = page.url

    page.locator("#to-coverage").click()
    expect(page.locator("[data-chart]")).to_have_attribute("data-state", "drawn")
    expect(page.locator("#coverage")).to_contain_text("of 192, over 6 layers")
    page.get_by_label("Programming language").select_option("COBOL")
    expect(page).to_have_url(re.compile("programming_language=COBOL"))
    expect(page.locator("[data-chart]")).to_have_attribute("data-state", "drawn")

    page.goto(job)
    page.locator("#to-errors").click()
    expect(page.locator("#table-layers [data-chart]")).to_have_attribute("data-state", "drawn")
    expect(page.locator("#modules")).to_contain_text("576 of 576 modules")
    expect(page.get_by_text("not measured")).to_have_count(0)

    page.goto(job)
    page.locator("#to-checkpoint").click()
    expect(page.get_by_text("verified", exact=True)).to_be_visible()
    assert overflow(page) <= 0
    for name in ("model.safetensors", "config.json"):
        got, shown = download(page, name, tmp_path)
        assert got == shown


def test_from_an_empty_overview_to_a_downloaded_checkpoint(page: Page, tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        try:
            run_through(page, server, tmp_path)
        except AssertionError as error:
            raise AssertionError(f"{error}\n\n{server.everything()}") from error

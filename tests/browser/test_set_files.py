"""A set's file as a person brings it in, and two sets held side by side."""

from __future__ import annotations

import re
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from app.calibration.building import build_set
from app.calibration.service import get_set, save_set, spec_of
from app.database import session_for
from tests.app.set_files.samples import SHORT
from tests.browser.conftest import Site


def violations(page: Page) -> list[str]:
    return [str(each["id"]) for each in Axe().run(page).response["violations"]]


def test_a_file_is_read_told_and_kept(page: Page, site: Site, tmp_path: Path) -> None:
    file = tmp_path / "my_seed.yaml"
    file.write_text(SHORT, encoding="utf-8")
    page.goto(f"{site.url}/sets")
    page.get_by_role("button", name="Import a file").click()
    page.get_by_label("File").set_input_files(file)
    page.get_by_role("button", name="Read it").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("my_seed")
    expect(page.locator(".status")).to_contain_text("60 rows")
    warnings = page.get_by_role("list", name="What to know of it")
    expect(warnings).to_contain_text("The comment says 32 rows for 'Code / Programming'")
    expect(warnings.get_by_role("listitem").filter(has_text="line 52")).to_have_count(1)
    assert violations(page) == []
    page.get_by_label("Name").fill("My seed, imported")
    page.get_by_role("button", name="Keep it", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("My seed, imported")
    with page.expect_download() as download:
        page.get_by_role("link", name="Quantizers YAML").click()
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert "hash(row|string) % 4" in text


def test_it_works_without_javascript_and_a_mistake_loses_nothing(
    browser: Browser, site: Site
) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.goto(f"{site.url}/sets/import")
    page.get_by_label("or its text").fill(SHORT.replace("num_samples: 20", "num_samples: -20"))
    page.get_by_role("button", name="Read it").click()
    expect(page.get_by_role("alert")).to_contain_text("line 58, num_samples: -20 rows")
    typed = page.get_by_label("or its text")
    typed.fill(typed.input_value().replace("-20", "20"))
    page.get_by_role("button", name="Read it").click()
    page.get_by_role("button", name="Keep it and compose").click()
    expect(page).to_have_url(re.compile(r"/sets/new\?like="))
    assert page.locator("input[name$='-name']").first.input_value()
    context.close()


def test_two_builds_side_by_side(page: Page, site: Site) -> None:
    with session_for(site.settings) as session:
        spec = spec_of(get_set(session, site.seeded.set_id)).model_copy(
            update={"token_budget": 4000}
        )
        weights = (spec.slices[0].model_copy(update={"weight": 5.0}), *spec.slices[1:])
        other = spec.model_copy(update={"name": "Less code", "slices": weights})
        ids = [save_set(session, each).id for each in (spec, other)]
    model = site.settings.data_dir / "models" / "MiniMax-M2-demo"
    for each in (spec, other):
        build_set(each, tokenizer_dir=model, sets_dir=site.settings.sets_dir)
    page.goto(f"{site.url}/sets/{ids[0]}")
    page.get_by_role("link", name="Compare with another set").click()
    page.get_by_label("B", exact=True).select_option(ids[1])
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".status")).to_contain_text("only in B")
    slices = page.get_by_role("region", name="By slice")
    expect(slices.get_by_role("row").filter(has_text="Code in 60")).to_contain_text("−")
    assert slices.locator("rect.less").count() >= 1
    assert violations(page) == []
    page.get_by_role("navigation", name="Which rows").get_by_text("Only in B").click()
    rows = page.get_by_role("region", name="Rows").get_by_role("row")
    expect(rows.nth(1)).to_contain_text("only B")
    page.get_by_role("link", name="Swap A and B").click()
    expect(page.get_by_label("A", exact=True)).to_have_value(ids[1])

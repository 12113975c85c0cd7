"""Writing a recipe as a person does."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.browser.conftest import Site


def test_the_recipe_is_told_while_it_is_typed_and_then_kept(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/recipes/new?like=experts-w4a16-g32")
    page.wait_for_selector("html[data-htmx]")
    told = page.locator("#lint")
    expect(told).to_contain_text("weights,")
    text = page.get_by_label("Recipe", exact=False).last
    whole = text.input_value()
    assert "grid: 20" in whole
    text.fill(whole.replace("grid: 20", "grid: 1000"))
    expect(told).to_contain_text("to mend")
    text.fill(
        whole.replace("grid: 20", "grid: 12").replace("statistics: all", "statistics: routed")
    )
    expect(told).to_contain_text("set a floor")
    page.get_by_label("Name").fill("typed-by-hand")
    page.get_by_role("button", name="Keep the recipe").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("typed-by-hand")
    expect(page.locator("main")).to_contain_text("AWQ tries 12 scale ratios")
    page.goto(f"{site.url}/sets/{site.seeded.set_id}")
    expect(page.locator("#recipe option[value=typed-by-hand]")).to_have_count(1)

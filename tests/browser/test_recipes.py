"""Writing a recipe as a person does."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Dialog, Page, expect

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


def test_what_was_typed_is_not_lost_by_a_way_out(new_page: Callable[..., Page], site: Site) -> None:
    page = new_page(may_complain=True)  # of the status 422
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.on("dialog", stay)
    page.goto(f"{site.url}/recipes/new")
    page.wait_for_selector("html[data-htmx]")
    page.get_by_role("link", name="linears-w4a16-g128", exact=True).click()
    page.wait_for_url("**/recipes/new?like=linears-w4a16-g128")
    assert asked == []
    page.get_by_label("Name").fill("Not Yet")
    page.get_by_role("link", name="linears-w4a16-g128-asym").click(no_wait_after=True)
    expect(page.get_by_label("Name")).to_have_value("Not Yet")
    assert asked == ["beforeunload"]

    page.get_by_role("button", name="Keep the recipe").click()
    expect(page.get_by_role("alert")).to_contain_text("Not kept yet")
    expect(page.locator("#lint")).to_contain_text("'not-yet' would do")
    page.get_by_role("link", name="Recipes", exact=True).first.click(no_wait_after=True)
    expect(page.get_by_label("Name")).to_have_value("Not Yet")
    assert asked == ["beforeunload"] * 2

    page.get_by_label("Name").fill("not-yet")
    page.get_by_role("button", name="Keep the recipe").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("not-yet")
    assert asked == ["beforeunload"] * 2

"""Composing a set as a person does."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Dialog, Page, Route, expect

from tests.browser.conftest import Site


def open_composer(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/sets/new")
    page.wait_for_selector("html[data-htmx]")


def test_totals_follow_while_somebody_works(page: Page, site: Site) -> None:
    open_composer(page, site)
    totals = page.locator("#totals")
    expect(totals).to_contain_text("of 60,000 tokens")
    page.get_by_label("Budget").fill("24000")
    expect(totals).to_contain_text("of 24,000 tokens")
    first = page.get_by_role("group", name="Slice 1")
    first.get_by_text("Programming language:").click()
    first.get_by_role("button", name="tick none").click()
    for name in ("Rust", "Go", "COBOL"):
        first.get_by_role("checkbox", name=re.compile(f"^{name} ")).check()
    expect(first).to_contain_text("Programming language: 3 chosen")
    totals.locator("summary", has_text="Programming language").click()
    expect(totals.get_by_role("row", name=re.compile("^Rust"))).not_to_contain_text("0.0 %")
    expect(totals.get_by_role("row", name=re.compile("^Zig"))).to_contain_text("0.0 %")


def test_open_lists_stay_open_when_the_totals_change(page: Page, site: Site) -> None:
    open_composer(page, site)
    totals = page.locator("#totals")
    totals.locator("summary", has_text="Domain").click()
    table = totals.get_by_role("region", name="By domain")
    expect(table).to_be_visible()
    page.get_by_label("Budget").fill("15000")
    expect(totals).to_contain_text("of 15,000 tokens")
    expect(table).to_be_visible()


def test_slider_and_number_are_one_weight(page: Page, site: Site) -> None:
    open_composer(page, site)
    slider = page.get_by_role("slider", name="Weight of slice 1, slider")
    slider.focus()
    slider.press("End")
    expect(page.locator("#slice-0-weight")).to_have_value("100")
    page.locator("#slice-0-weight").fill("10")
    expect(slider).to_have_value("10")
    row = page.locator("#totals").get_by_role("row", name=re.compile("^Code in 60"))
    expect(row).to_contain_text("10,909")  # 10 of 55 parts of 60,000


def test_a_locked_slice_keeps_its_share_while_others_move(page: Page, site: Site) -> None:
    open_composer(page, site)
    second = page.get_by_role("group", name="Slice 2")
    second.get_by_label("lock the share of slice 2").check()
    expect(page.locator("#slice-1-weight")).not_to_be_editable()
    page.locator("#slice-0-weight").fill("5")
    expect(page.locator("#slice-1-weight")).to_have_value("7.5")  # 20 of 100, as 7.5 of 37.5
    row = page.locator("#totals").get_by_role("row", name=re.compile("^Text in 12"))
    expect(row).to_contain_text("12,000")
    page.get_by_role("button", name="Add a slice").click()
    expect(page.get_by_role("group", name="Slice 4")).to_be_visible()
    page.locator("#slice-0-weight").fill("54")
    expect(page.locator("#slice-1-weight")).not_to_have_value("7.5")


def test_a_slice_counts_tokens_or_rows_as_it_is_told(page: Page, site: Site) -> None:
    open_composer(page, site)
    totals = page.locator("#totals")
    row = totals.get_by_role("row", name=re.compile("^Text in 12"))
    expect(page.locator("#slice-1-amount")).to_be_hidden()
    page.locator("#slice-1-kind").select_option("rows")
    expect(page.locator("#slice-1-weight")).to_be_hidden()
    page.locator("#slice-1-amount").fill("24")
    expect(row).to_contain_text("24 rows")
    page.locator("#slice-1-kind").select_option("tokens")
    page.locator("#slice-1-amount").fill("6,000")
    expect(row).to_contain_text("6,000")
    page.get_by_label("Budget").fill("5000")
    expect(totals).to_contain_text("more than the set's budget of 5,000 tokens")


def test_rows_are_previewed_page_by_page(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/sets/{site.seeded.set_id}")
    page.get_by_role("link", name=re.compile("^All [0-9,]+ rows")).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Rows as the model sees them")
    rows = page.locator(".sample")
    expect(rows).to_have_count(10)
    expect(rows.first.locator(".turn-assistant b")).to_have_text("assistant")
    expect(page.locator("bdi.cut").first).to_contain_text("tokens cut")
    first = rows.first.get_by_role("region").inner_text()
    page.get_by_role("link", name="Next").click()
    expect(page.get_by_text("page 2 of")).to_be_visible()
    assert rows.first.get_by_role("region").inner_text() != first


def test_slices_come_and_go_and_keep_what_was_typed(page: Page, site: Site) -> None:
    open_composer(page, site)
    page.get_by_label("Name").first.fill("My own set")
    page.get_by_role("button", name="Add a slice").click()
    fourth = page.get_by_role("group", name="Slice 4")
    expect(fourth).to_be_visible()
    page.get_by_role("button", name="Take slice 2 out").click()
    expect(fourth).to_have_count(0)
    expect(page.locator("#name")).to_have_value("My own set")
    expect(page.locator("#slice-1-name")).to_have_value("13 domains in English")
    page.get_by_label("Budget").fill("9000")
    expect(page.locator("#totals")).to_contain_text("of 9,000 tokens")


def test_totals_asked_for_meanwhile_do_not_lose_a_click(page: Page, site: Site) -> None:
    """The totals are asked for 250 ms after the last key, so often while a click is answered."""

    def answer_late(route: Route) -> None:
        page.wait_for_timeout(600)
        route.continue_()

    open_composer(page, site)
    page.route("**/sets/new", answer_late)
    page.get_by_label("Budget").fill("9000")
    page.get_by_role("button", name="Add a slice").click()
    expect(page.get_by_role("group", name="Slice 4")).to_be_visible()
    expect(page.locator("#totals")).to_contain_text("of 9,000 tokens")
    page.get_by_label("Budget").fill("12000")
    expect(page.locator("#totals")).to_contain_text("of 12,000 tokens")


def test_a_mistake_is_told_at_its_field(new_page: Callable[..., Page], site: Site) -> None:
    page = new_page(may_complain=True)  # Chromium reports the status 422.
    open_composer(page, site)
    page.get_by_label("Budget").fill("99000000")
    page.get_by_role("button", name="Save the set").click()
    budget = page.get_by_label("Budget")
    expect(budget).to_have_attribute("aria-invalid", "true")
    expect(budget).to_have_value("99000000")
    expect(page.locator("#token_budget-problem")).to_contain_text("is more than the")


def test_a_set_is_saved_and_shows_what_it_holds(page: Page, site: Site) -> None:
    open_composer(page, site)
    page.get_by_label("Name").first.fill("Saved in a browser")
    page.get_by_role("button", name="Save the set").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Saved in a browser")
    expect(page.get_by_text("can be built")).to_be_visible()
    expect(page.locator(".sample")).to_have_count(6)


def test_composing_without_scripts(new_page: Callable[..., Page], site: Site) -> None:
    page = new_page(java_script_enabled=False)
    page.goto(f"{site.url}/sets/new")
    page.get_by_label("Name").first.fill("Without scripts")
    page.get_by_role("button", name="Add a slice").click()
    page.locator("#slice-3-name").fill("Law")
    group = page.get_by_role("group", name="Slice 4")
    group.locator("summary", has_text="Domain").click()
    group.get_by_role("checkbox", name=re.compile("^Law ")).check()
    page.get_by_role("button", name="Save the set").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Without scripts")
    expect(page.get_by_role("rowheader", name="Law").first).to_be_visible()


@pytest.mark.parametrize("scripts", [True, False])
def test_enter_in_a_field_saves_and_takes_no_slice_out(
    new_page: Callable[..., Page], site: Site, scripts: bool
) -> None:
    page = new_page(java_script_enabled=scripts)
    page.goto(f"{site.url}/sets/new")
    page.get_by_label("Name").first.fill(f"By the keyboard {scripts}")
    page.get_by_label("Budget").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"By the keyboard {scripts}")
    expect(page.locator("ul.spec > li")).to_have_count(3)


def test_the_focus_stays_where_a_slice_was_added(page: Page, site: Site) -> None:
    open_composer(page, site)
    page.get_by_role("button", name="Add a slice").press("Enter")
    expect(page.get_by_role("group", name="Slice 4")).to_be_visible()
    expect(page.get_by_role("button", name="Add a slice")).to_be_focused()


def test_what_was_composed_is_not_lost_by_a_way_out(page: Page, site: Site) -> None:
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.on("dialog", stay)
    open_composer(page, site)
    page.get_by_role("link", name="Sources").click()
    page.wait_for_url("**/sources")
    assert asked == []
    open_composer(page, site)
    page.get_by_label("Name").first.fill("An hour of work")
    page.get_by_role("link", name="Sources").click(no_wait_after=True)
    expect(page.locator("#name")).to_have_value("An hour of work")
    assert asked == ["beforeunload"]
    page.get_by_role("button", name="Save the set").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("An hour of work")
    assert asked == ["beforeunload"]


def test_of_many_slices_the_named_ones_are_closed(page: Page, site: Site) -> None:
    open_composer(page, site)
    for count in range(4, 8):
        page.get_by_role("button", name="Add a slice").click()
        expect(page.get_by_role("group", name=f"Slice {count}")).to_be_attached()
    first = page.get_by_role("group", name="Slice 1")
    name = first.get_by_label("Name", exact=True)
    expect(first).to_contain_text("Code in 60 programming languages")
    expect(name).to_be_hidden()
    first.locator("summary", has_text="Slice 1").click()
    name.fill("Code")
    first.locator("summary", has_text="Slice 1").click()
    expect(first.locator("summary", has_text="Slice 1")).to_contain_text("Code")
    expect(page.locator("#totals").get_by_role("row", name=re.compile("^Code "))).to_be_visible()

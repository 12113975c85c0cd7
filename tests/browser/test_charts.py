"""The heatmap and the error chart, and the tables below them."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Page, expect

from tests.browser.conftest import Site


def open_chart(page: Page, site: Site, name: str) -> None:
    page.goto(f"{site.url}/jobs/{site.seeded.jobs['succeeded']}/{name}")
    for chart in page.locator("[data-chart]").all():
        expect(chart).to_have_attribute("data-state", "drawn")


def hover(page: Page, x: float, y: float) -> str:
    """The text plotly shows at a place of the heatmap, in shares of the plot."""
    box = page.locator("[data-chart] .nsewdrag").first.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y)
    text = page.locator("[data-chart] .hovertext")
    expect(text).to_be_visible()
    return " ".join(text.all_text_contents())


def test_hovering_says_who_feeds_an_expert(page: Page, site: Site) -> None:
    open_chart(page, site, "coverage")
    text = hover(page, 0.5 / 32, 0.5 / 6)
    assert "Layer 0, expert 0" in text
    assert re.search(r"[\d,]+ tokens, [\d.]+% of the layer", text)
    assert re.search(r"Rank \d+ in its layer", text)
    for facet in ("Spoken language", "Programming language", "Domain", "Source"):
        assert facet in text


def test_a_filter_redraws_without_a_reload_and_stays_in_the_address(page: Page, site: Site) -> None:
    open_chart(page, site, "coverage")
    page.evaluate("window.same = true")
    page.get_by_label("Programming language").select_option("Rust")
    expect(page.locator("[data-chart]")).to_have_attribute(
        "data-chart", re.compile("programming_language=Rust")
    )
    expect(page.locator("[data-chart]")).to_have_attribute("data-state", "drawn")
    assert page.evaluate("window.same")
    assert "programming_language=Rust" in page.url
    page.get_by_label("Scale").select_option("log")
    expect(page).to_have_url(re.compile("scale=log"))
    page.reload()
    expect(page.get_by_label("Programming language")).to_have_value("Rust")
    expect(page.get_by_label("Scale")).to_have_value("log")


def test_a_filter_that_is_refused_says_so_and_takes_nothing_away(
    new_page: Callable[..., Page], site: Site
) -> None:
    page = new_page(may_complain=True)  # Chromium calls an answer of 422 an error.
    open_chart(page, site, "coverage")
    page.get_by_label("Spoken language").select_option("de")
    expect(page).to_have_url(re.compile("spoken_language=de"))
    page.get_by_label("Programming language").select_option("Rust")
    refusal = page.get_by_role("alert")
    expect(refusal).to_contain_text("No row of the set has German as its spoken language and Rust")
    expect(refusal).to_be_in_viewport()
    expect(page.get_by_label("Programming language")).to_have_value("Rust")
    page.get_by_label("Starved below").fill("many")
    page.get_by_label("Starved below").blur()
    expect(refusal).to_contain_text("floor")
    page.get_by_label("Starved below").fill("more")
    page.get_by_label("Starved below").press("Enter")
    expect(refusal).to_contain_text("'more'")
    expect(page.get_by_label("Starved below")).to_be_focused()
    assert "floor=more" not in page.url
    assert "spoken_language=de" in page.url
    page.get_by_label("Starved below").fill("64")
    page.get_by_label("Programming language").select_option("")
    expect(refusal).to_have_count(0)
    expect(page.locator("[data-chart]")).to_have_attribute("data-state", "drawn")
    assert "spoken_language=de" in page.url


def test_the_table_is_sorted_and_paged_by_the_server(page: Page, site: Site) -> None:
    open_chart(page, site, "coverage")
    page.evaluate("window.same = true")
    page.get_by_role("link", name="Tokens").click()
    header = page.locator("#experts").get_by_role("columnheader", name="Tokens")
    expect(header).to_have_attribute("aria-sort", "descending")
    page.locator("#experts").get_by_role("link", name="Next").click()
    expect(page.locator("#experts")).to_contain_text("page 2 of 6")
    assert page.evaluate("window.same")
    expect(page.locator("[data-chart]")).to_have_attribute("data-state", "drawn")


def test_sorted_by_load_the_first_of_a_layer_has_rank_one(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/jobs/{site.seeded.jobs['succeeded']}/coverage?order=load&scale=log")
    expect(page.locator("[data-chart]")).to_have_attribute("data-state", "drawn")
    assert "Rank 1 in its layer" in hover(page, 0.5 / 32, 2.5 / 6)


def test_a_cell_opens_its_expert_and_so_does_the_keyboard(page: Page, site: Site) -> None:
    open_chart(page, site, "coverage")
    hover(page, 7.5 / 32, 2.5 / 6)
    page.mouse.down()
    page.mouse.up()
    expect(page.get_by_role("heading", level=1)).to_have_text("Expert 7 of layer 2")
    expect(page.get_by_role("heading", name="Rows that feed it most")).to_be_visible()
    page.go_back()
    link = page.locator("#experts").get_by_role("link", name=re.compile("^Expert")).first
    name = link.get_attribute("aria-label")
    link.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(str(name))


def test_a_comparison_shows_both_sides_under_the_pointer(page: Page, site: Site) -> None:
    open_chart(page, site, "coverage/compare")
    text = hover(page, 0.5 / 32, 0.5 / 6)
    assert "its held-out rows" in text
    assert len(re.findall(r"[\d,]+ tokens, [\d.]+%", text)) == 2
    page.get_by_label("Shows").select_option("tokens")
    page.get_by_role("button", name="Compare").click()
    expect(page).to_have_url(re.compile("measure=tokens"))
    expect(page.locator("[data-chart]")).to_have_attribute("data-state", "drawn")


def test_rows_are_chosen_and_saved_as_a_set(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/jobs/{site.seeded.jobs['succeeded']}/coverage")
    page.get_by_role("link", name="Choose better rows").click()
    page.get_by_label("Budget").fill("20000")
    page.get_by_role("button", name="Choose", exact=True).click()
    expect(page.get_by_role("heading", name="What it gains")).to_be_visible()
    expect(page.locator("[data-chart]")).to_have_attribute("data-state", "drawn")
    page.get_by_label("Name of the set").fill("Chosen in the browser")
    page.get_by_role("button", name="Save these rows as a set").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Chosen in the browser")


def test_the_error_chart_has_both_panels(page: Page, site: Site) -> None:
    open_chart(page, site, "errors")
    chart = page.locator("#table-layers [data-chart]")
    expect(chart).to_contain_text("Relative MSE")
    expect(chart).to_contain_text("SQNR (dB)")
    assert chart.locator(".bars .point").count() == 6
    page.get_by_label("Name contains").fill("down_proj")
    page.locator("#modules").get_by_role("button", name="Filter").click()
    expect(page.locator("#modules")).to_contain_text("192 of 576 modules")
    chart = page.locator("#modules [data-chart]")
    expect(chart).to_have_attribute("data-state", "drawn")
    expect(chart).to_contain_text("Kind of module")
    assert set(chart.locator(".ytick text").all_text_contents()) == {"experts.*.down_proj"}
    page.get_by_role("button", name=re.compile("Download modules-.* as SVG")).focus()
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert "Error of weights by layer and kind" in download.value.path().read_text()


def test_a_quality_table_is_sorted_by_the_server(page: Page, site: Site) -> None:
    open_chart(page, site, "errors")
    page.evaluate("window.same = true")
    section = page.locator("#table-slices")
    section.get_by_role("link", name="Rows").click()
    header = section.get_by_role("columnheader", name="Rows")
    expect(header).to_have_attribute("aria-sort", "descending")
    first = int(section.locator("tbody tr td.n").first.inner_text())
    header.get_by_role("link").click()
    expect(header).to_have_attribute("aria-sort", "ascending")
    assert int(section.locator("tbody tr td.n").first.inner_text()) < first
    expect(section.locator("[data-chart]")).to_have_attribute("data-state", "drawn")
    assert page.evaluate("window.same"), "the page was reloaded"
    page.locator("#table-experts").get_by_role("link", name="Next").click()
    expect(page.locator("#table-experts")).to_contain_text("page 2 of 7")


def test_the_drawing_library_is_fetched_while_the_jobs_page_is_read(page: Page, site: Site) -> None:
    with page.expect_request_finished(lambda request: "plotly" in request.url):
        page.goto(f"{site.url}/jobs/{site.seeded.jobs['succeeded']}")
    page.get_by_role("button", name="Coverage heatmap").click()
    expect(page.locator("[data-chart]")).to_have_attribute("data-state", "drawn")
    fetched = page.evaluate(
        "performance.getEntriesByType('resource').filter((one) => one.name.includes('plotly'))"
        ".map((one) => one.transferSize)"
    )
    assert fetched == [0], "it came from the browser's cache"


def test_the_chart_follows_the_scheme(page: Page, site: Site) -> None:
    open_chart(page, site, "coverage")
    label = page.locator("[data-chart] .xtick text").first
    light = label.evaluate("element => getComputedStyle(element).fill")
    page.emulate_media(color_scheme="dark")
    expect(label).not_to_have_css("fill", light)


def test_a_chart_that_cannot_be_fetched_says_so(new_page, site: Site) -> None:
    page = new_page(may_complain=True)
    page.route("**/coverage/chart?**", lambda route: route.abort())
    page.goto(f"{site.url}/jobs/{site.seeded.jobs['succeeded']}/coverage")
    expect(page.locator("[data-chart]")).to_have_attribute("data-state", "failed")
    expect(page.locator("[data-chart]")).to_contain_text("The table below has the same numbers")

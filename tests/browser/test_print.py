"""What of a page goes on paper."""

from __future__ import annotations

from playwright.sync_api import Page


def test_a_printed_report_is_all_of_it_and_nothing_else(page: Page, site) -> None:
    page.goto(f"{site.url}/jobs/{site.seeded.jobs['succeeded']}/report")
    page.emulate_media(media="print")
    for selector in ("header.top", "footer.bottom", ".twins", "main [role=button]"):
        assert page.locator(f"{selector}:visible").count() == 0, selector
    assert page.locator("main h1:visible").count() == 1
    scrolling = """[...document.querySelectorAll(".table, pre")]
        .filter((frame) => frame.scrollHeight > frame.clientHeight + 1
            && getComputedStyle(frame).overflowY !== "visible").length"""
    assert page.evaluate(scrolling) == 0

"""Two jobs ticked in a list, side by side."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import Site
from tests.browser.test_pages import overflow
from tests.seed import second_job


@pytest.fixture(scope="module")
def other(site: Site) -> str:
    """A second job that can be compared."""
    return second_job(site.settings, site.seeded)


def test_two_ticks_and_a_click(page: Page, site: Site, other: str) -> None:
    page.goto(f"{site.url}/jobs")
    first = site.seeded.jobs["succeeded"]
    for job in (first, other):
        page.get_by_role("checkbox", name=re.compile(job)).check()
    page.get_by_role("button", name="Compare the ticked jobs").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("2 jobs side by side")
    expect(page.locator("main")).to_contain_text("B is better beyond chance in COBOL")
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="COBOL"))
    expect(row.locator(".state")).to_have_text("better")
    for chart in page.locator("[data-chart]").all():
        expect(chart).to_have_attribute("data-state", "drawn")


def test_one_tick_is_told_what_is_missing(
    new_page: Callable[..., Page], site: Site, other: str
) -> None:
    page = new_page(may_complain=True)  # of the status 422
    page.goto(f"{site.url}/checkpoints")
    page.get_by_role("checkbox", name=re.compile(other)).check()
    with page.expect_navigation():
        page.get_by_role("button", name="Compare the ticked checkpoints").click()
    expect(page.locator("main")).to_contain_text("choose two to 6")


@pytest.mark.parametrize("format_", ["PNG", "SVG"])
def test_charts_are_pictures_too(
    page: Page, site: Site, other: str, format_: str, tmp_path: Path
) -> None:
    page.goto(f"{site.url}/compare?jobs={site.seeded.jobs['succeeded']},{other}")
    button = page.get_by_role("button", name=re.compile(f"slices.* as {format_}"))
    with page.expect_download() as started:
        button.click()
    file = tmp_path / "picture"
    started.value.save_as(file)
    content = file.read_bytes()
    assert started.value.suggested_filename.endswith(format_.lower())
    assert content.startswith(b"\x89PNG") if format_ == "PNG" else b"Change of KL" in content


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_accessible_and_fits(
    new_page: Callable[..., Page], site: Site, other: str, scheme: str
) -> None:
    page = new_page(color_scheme=scheme)
    for address in ("/compare", f"/compare?jobs={site.seeded.jobs['succeeded']},{other}"):
        page.goto(site.url + address)
        for chart in page.locator("[data-chart]").all():
            expect(chart).to_have_attribute("data-state", "drawn")
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(200)
        assert overflow(page) <= 0

"""Every page: accessible in light and dark, and no wider than a phone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

PAGES = {
    "overview": "/",
    "sets": "/sets",
    "compose": "/sets/new",
    "set": "/sets/{set_id}",
    "rows of a set": "/sets/{set_id}/rows",
    "audit": "/sets/{set_id}/audit",
    "set import": "/sets/import",
    "sets side by side": "/sets/diff?a=starter&b={set_id}",
    "models": "/models",
    "model": "/models/{model_id}",
    "recipes": "/recipes",
    "recipe": "/recipes/experts-w4a16-g32",
    "recipe editor": "/recipes/new",
    "jobs": "/jobs",
    "job running": "/jobs/{running}",
    "job succeeded": "/jobs/{succeeded}",
    "job failed": "/jobs/{failed}",
    "coverage": "/jobs/{succeeded}/coverage",
    "expert": "/jobs/{succeeded}/coverage/experts/2/7",
    "compared coverage": "/jobs/{succeeded}/coverage/compare",
    "chosen rows": "/jobs/{succeeded}/coverage/rows?budget=20000",
    "errors": "/jobs/{succeeded}/errors",
    "mixed precision": "/jobs/{succeeded}/sensitivity?budget=5.2&unit=MB",
    "report": "/jobs/{succeeded}/report",
    "log": "/jobs/{succeeded}/log",
    "gates": "/gates",
    "checkpoints": "/checkpoints",
    "checkpoint": "/checkpoints/{succeeded}",
    "sources": "/sources",
    "login": "/login",
}


def open_page(page: Page, site, name: str) -> None:
    """Go to a page and wait until its scripts have run and its chart is drawn."""
    ids = {"set_id": site.seeded.set_id, "model_id": site.seeded.model_id, **site.seeded.jobs}
    page.goto(site.url + PAGES[name].format(**ids))
    page.wait_for_selector("html[data-htmx]")
    for chart in page.locator("[data-chart]").all():
        expect(chart).to_have_attribute("data-state", "drawn")


def overflow(page: Page) -> int:
    """How many pixels the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_page_is_accessible_and_fits(
    new_page: Callable[..., Page], site, name: str, scheme: str
) -> None:
    page = new_page(color_scheme=scheme)
    open_page(page, site, name)
    assert overflow(page) <= 0
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(200)  # plotly follows the window
    assert overflow(page) <= 0
    if scheme == "light":
        narrow = Axe().run(page)
        assert narrow.violations_count == 0, narrow.generate_report()


@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole_without_scripts(new_page: Callable[..., Page], site, name: str) -> None:
    page = new_page(java_script_enabled=False)
    ids = {"set_id": site.seeded.set_id, "model_id": site.seeded.model_id, **site.seeded.jobs}
    page.goto(site.url + PAGES[name].format(**ids))
    expect(page.locator("main h1")).to_be_visible()
    assert page.locator("button[data-copy]:visible, button[data-check]:visible").count() == 0


def test_the_keyboard_reaches_the_content_first(page: Page, site) -> None:
    page.goto(site.url)
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_copying_a_hash(new_page: Callable[..., Page], site) -> None:
    page = new_page(permissions=["clipboard-read", "clipboard-write"])
    open_page(page, site, "checkpoint")
    row = page.get_by_role("row", name="model.safetensors")
    row.get_by_role("button").click()
    expect(row.get_by_role("status")).to_have_text("copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == row.locator("code").get_attribute("title")


def test_whatever_the_keyboard_is_on_has_a_sharp_ring(page: Page, site) -> None:
    open_page(page, site, "compose")
    page.locator("#name").focus()
    ring = "getComputedStyle(document.activeElement).outline"
    kinds = set()
    for _ in range(16):
        kinds.add(page.evaluate("document.activeElement.type || document.activeElement.tagName"))
        assert "solid 2px" in page.evaluate(ring), page.evaluate("document.activeElement.outerHTML")
        page.keyboard.press("Tab")
    assert kinds >= {"text", "checkbox", "range", "select-one", "SUMMARY"}

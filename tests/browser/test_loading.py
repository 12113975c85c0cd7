"""Where htmx comes from: its CDN, or this server when the CDN does not answer.

The CDN itself cannot be reached here; its answers are stood in for at the network's edge.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, Route, expect

from app.assets import HTMX_CDN_URL, STATIC_DIR
from tests.browser.conftest import Site, web_process

HTMX = (STATIC_DIR / "vendor" / "htmx.min.js").read_text()
HEADERS = {"access-control-allow-origin": "*", "content-type": "text/javascript"}


@pytest.fixture(scope="module")
def cdn_url(site: Site) -> Iterator[str]:
    """The same installation with htmx from the CDN."""
    with web_process(site.settings.data_dir, CALIBRANT_ASSETS="cdn") as url:
        yield url


def loaded_from(page: Page) -> str | None:
    """Wait until htmx runs with its extension, and say where it came from."""
    page.wait_for_selector("html[data-htmx]")
    assert page.evaluate("htmx.version") == "4.0.1"
    return page.locator("html").get_attribute("data-htmx")


def works(page: Page) -> None:
    """Type into the composer and see the totals follow."""
    page.get_by_label("Budget").fill("30000")
    expect(page.locator("#totals")).to_contain_text("of 30,000 tokens")


def test_from_the_cdn_with_its_integrity(page: Page, cdn_url: str) -> None:
    page.route(HTMX_CDN_URL, lambda route: route.fulfill(body=HTMX, headers=HEADERS))
    page.goto(f"{cdn_url}/sets/new")
    assert loaded_from(page) == "cdn"
    works(page)


def test_a_cdn_that_cannot_be_reached(new_page: Callable[..., Page], cdn_url: str) -> None:
    page = new_page(may_complain=True)
    page.route(HTMX_CDN_URL, lambda route: route.abort())
    page.goto(f"{cdn_url}/sets/new")
    assert loaded_from(page) == "local"
    works(page)


def test_a_cdn_that_sends_something_else(new_page: Callable[..., Page], cdn_url: str) -> None:
    page = new_page(may_complain=True)
    other = HTMX + "\nwindow.tampered = true;"
    page.route(HTMX_CDN_URL, lambda route: route.fulfill(body=other, headers=HEADERS))
    page.goto(f"{cdn_url}/sets/new")
    assert loaded_from(page) == "local"
    assert page.evaluate("window.tampered") is None
    works(page)


def test_a_cdn_that_is_slow_does_not_start_htmx_twice(
    new_page: Callable[..., Page], cdn_url: str
) -> None:
    page = new_page(may_complain=True)
    waiting: list[Route] = []
    page.route(HTMX_CDN_URL, lambda route: waiting.append(route))
    began = time.monotonic()
    page.goto(f"{cdn_url}/sets/new", wait_until="commit")
    assert loaded_from(page) == "local"
    assert 1.5 < time.monotonic() - began < 15
    page.evaluate("window.first = htmx")
    waiting[0].fulfill(body=HTMX, headers=HEADERS)
    page.wait_for_timeout(700)
    assert page.evaluate("window.first === window.htmx")
    works(page)


def test_the_installation_may_ask_for_local_files(page: Page, site: Site) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{site.url}/sets/new")
    assert loaded_from(page) == "local"
    assert all(address.startswith((site.url, "data:")) for address in asked)
    works(page)

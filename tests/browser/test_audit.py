"""Auditing a set in the browser, on the whole product: from its page through the job to the
report, and on to what a finding is about."""

from __future__ import annotations

import re
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.test_pages import overflow
from tests.integration.server import Server, serving

JOB_MS = 300_000


def audit_a_set(page: Page, server: Server) -> None:
    page.goto(server.address)
    page.get_by_role("button", name="Add a model").click()
    page.get_by_role("button", name="Add the bundled demo model").click()
    expect(page.get_by_text("MiniMaxM2ForCausalLM")).to_be_visible()
    page.goto(server.address + "/sets/new")
    page.get_by_label("Budget").fill("12000")
    page.get_by_role("button", name="Save the set").click()
    page.get_by_role("link", name="Audit: is it what it says?").click()
    expect(page.get_by_text("Not audited yet")).to_be_visible()
    address = page.url
    page.get_by_role("button", name="Build and audit").click()
    live = page.locator("#live")
    expect(live.locator(".state")).to_have_text(
        re.compile("succeeded|failed|lost|cancelled"), timeout=JOB_MS
    )
    expect(live.locator(".state")).to_have_text("succeeded")
    page.locator("#to-audit").click()
    assert page.url.startswith(address)


def look_at_the_report(page: Page) -> None:
    expect(page.get_by_text("The set is what it says")).to_be_visible()
    expect(page.get_by_text("no source has: Pony")).to_be_visible()
    expect(page.locator("[data-chart]")).to_have_attribute("data-state", "drawn")
    spoken = page.get_by_role("region", name="Spoken languages")
    expect(spoken.get_by_role("row", name=re.compile("^Hebrew"))).to_contain_text(
        "fed and labelled"
    )
    assert overflow(page) <= 0
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(200)  # plotly follows the window
    assert overflow(page) <= 0
    narrow = Axe().run(page)
    assert narrow.violations_count == 0, narrow.generate_report()


def test_a_set_is_audited_from_its_page(page: Page, tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        try:
            audit_a_set(page, server)
            look_at_the_report(page)
            page.get_by_role("link", name="Look at the sources").first.click()
            expect(page).to_have_url(re.compile("/sources$"))
        except AssertionError as error:
            raise AssertionError(f"{error}\n\n{server.everything()}") from error

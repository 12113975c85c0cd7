"""Gates are set in a form, and a checkpoint says how it stands to them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from app.database import session_for
from app.quality.gates import Gates
from app.quality.service import set_gates
from tests.browser.conftest import Site


@pytest.fixture
def open_gates(site: Site) -> Iterator[None]:
    """The gates are taken away again."""
    yield
    with session_for(site.settings) as session:
        set_gates(session, Gates())


@pytest.mark.usefixtures("open_gates")
def test_a_gate_marks_a_checkpoint_and_keeps_nobody_out(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/checkpoints")
    page.get_by_role("button", name="Set gates").click()
    page.get_by_label("Mean KL at most").fill("0.001")
    page.get_by_label("Verified").check()
    page.get_by_role("button", name="Set the gates").click()
    checkpoint = site.seeded.jobs["succeeded"]
    row = page.get_by_role("row").filter(has=page.locator(f"a[href='/checkpoints/{checkpoint}']"))
    expect(row.locator(".state-failed")).to_have_text("failed")
    row.get_by_role("link").first.click()
    gate = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="Mean KL"))
    expect(gate).to_contain_text("at most 0.001000 nats a token")
    expect(gate.locator(".state")).to_have_text("failed")
    with page.expect_download():
        page.get_by_role("link", name="config.json", exact=True).click()

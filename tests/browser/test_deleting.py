"""Deleting as a person does: what it frees is said first, and it works without scripts."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from app.base_models.service import get_model
from app.calibration.service import get_set, save_set
from app.database import session_for
from tests.browser.conftest import Site
from tests.seed import cancelled_job, small_spec


def ended_job(site: Site) -> str:
    """A cancelled job of its own that finished two layers."""
    with session_for(site.settings) as session:
        saved = get_set(session, site.seeded.set_id)
        model = get_model(session, site.seeded.model_id)
        job_id = cancelled_job(session, site.settings, saved, model)
    layers = site.settings.jobs_dir / job_id / "layers"
    layers.mkdir(parents=True)
    for number in range(3):
        (layers / f"layer-{number:04d}.json").write_text("{}")
        (layers / f"layer-{number:04d}.safetensors").write_bytes(b"0" * 1_000_000)
    return job_id


def test_a_job_is_deleted_without_scripts_on_a_phone(
    new_page: Callable[..., Page], site: Site
) -> None:
    job_id = ended_job(site)
    page = new_page(java_script_enabled=False, viewport={"width": 390, "height": 800})
    page.goto(f"{site.url}/jobs/{job_id}")
    page.get_by_text("Delete…", exact=True).click()
    expect(page.locator("#delete")).to_contain_text("That frees 3.00 MB.")
    page.get_by_role("button", name="Delete this job").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Jobs")
    expect(page.locator(f'a[href="/jobs/{job_id}"]')).to_have_count(0)
    assert not (site.settings.jobs_dir / job_id).exists()


def test_a_set_is_deleted_without_scripts_once_no_job_needs_it(
    new_page: Callable[..., Page], site: Site
) -> None:
    page = new_page(java_script_enabled=False, viewport={"width": 390, "height": 800})
    page.goto(f"{site.url}/sets/{site.seeded.set_id}")
    page.get_by_text("Delete…", exact=True).click()
    expect(page.locator("#delete")).to_contain_text("is used by jobs")
    expect(page.get_by_role("button", name="Delete this set")).to_have_count(0)

    with session_for(site.settings) as session:
        spec = small_spec().model_copy(update={"name": "Not for long"})
        address = f"/sets/{save_set(session, spec).id}"
    page.goto(site.url + address)
    page.get_by_text("Delete…", exact=True).click()
    expect(page.locator("#delete")).to_contain_text("That frees 0 B.")
    page.get_by_role("button", name="Delete this set").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Calibration sets")
    expect(page.locator(f'a[href="{address}"]')).to_have_count(0)


def test_the_confirmation_is_accessible_and_fits_a_phone(page: Page, site: Site) -> None:
    job_id = ended_job(site)
    page.set_viewport_size({"width": 390, "height": 800})
    addresses = (f"/jobs/{job_id}", f"/sets/{site.seeded.set_id}")
    for address, scheme in itertools.product(addresses, ("light", "dark")):
        page.emulate_media(color_scheme=scheme)
        page.goto(site.url + address)
        page.wait_for_selector("html[data-htmx]")
        page.get_by_text("Delete…", exact=True).focus()
        page.keyboard.press("Enter")
        expect(page.locator("#delete p")).to_be_visible()
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390

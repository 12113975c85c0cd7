"""A job's page while the job goes on: told by the server, without a reload."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect
from sqlmodel import Session

from app.base_models.service import get_model
from app.calibration.service import get_set
from app.database import session_for, utc_now
from app.jobs import record, service
from app.jobs.events import LayerQuantized, Notice, Progress, StepFinished
from app.jobs.states import JobState, Step
from tests.browser.conftest import Site, web_process
from tests.seed import running_job


@pytest.fixture
def session(site: Site) -> Iterator[Session]:
    """A session on the served installation: what a worker would write, the test writes."""
    with session_for(site.settings) as opened:
        yield opened


@pytest.fixture
def job_id(site: Site, session: Session) -> str:
    """A job of its own in the middle of its third step."""
    saved, model = get_set(session, site.seeded.set_id), get_model(session, site.seeded.model_id)
    return running_job(session, site.settings, saved, model)


def tell(session: Session, job_id: str, *events) -> None:
    known = len(service.list_events(session, job_id))
    for number, event in enumerate(events, start=known + 1):
        record.keep(session, job_id, number, event)


def fail(session: Session, job_id: str) -> None:
    values = {"failure": "The layer was lost.", "finished_at": utc_now()}
    service.move(session, job_id, to=JobState.FAILED, out_of=[JobState.RUNNING], **values)


def test_what_the_job_says_appears(page: Page, site: Site, session: Session, job_id: str) -> None:
    page.goto(f"{site.url}/jobs/{job_id}")
    expect(page.locator("#live")).to_contain_text("3 of 6 layers")
    expect(page.locator("#live")).to_contain_text("working")
    tell(
        session,
        job_id,
        LayerQuantized(layer=3, relative_mse=0.0082, sqnr_db=20.86, seconds=1.0),
        Progress(step=Step.QUANTIZE, done=4, total=6, unit="layers"),
        Notice(level="warning", message="Layer 3 was quantized with few tokens."),
    )
    expect(page.locator("#live")).to_contain_text("4 of 6 layers")
    expect(page.locator("#layer-3")).to_contain_text("20.86")
    expect(page.locator("#live")).to_contain_text("Layer 3 was quantized with few tokens.")


def test_a_reload_in_the_middle_loses_nothing(
    page: Page, site: Site, session: Session, job_id: str
) -> None:
    page.goto(f"{site.url}/jobs/{job_id}")
    page.wait_for_selector("html[data-htmx]")
    page.reload()
    expect(page.locator("#layer-2")).to_be_visible()
    tell(session, job_id, StepFinished(step=Step.QUANTIZE, seconds=9.5))
    expect(page.locator(".step-done", has_text="Quantize")).to_contain_text("9.5 s")


def test_nothing_moves_after_the_end(page: Page, site: Site, session: Session, job_id: str) -> None:
    page.goto(f"{site.url}/jobs/{job_id}")
    page.wait_for_selector("html[data-htmx]")
    fail(session, job_id)
    expect(page.locator("#live")).to_contain_text("The layer was lost.")
    expect(page.get_by_role("button", name="Retry as a new job")).to_be_visible()
    expect(page.locator("#cancel")).to_have_count(0)
    page.wait_for_timeout(2500)  # The log asks once more, then no more.
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(3000)
    assert asked == []
    assert page.locator("time[data-tick=span]").count() == 0


def test_the_cancel_question_stays_open_while_the_page_changes(
    page: Page, site: Site, session: Session, job_id: str
) -> None:
    page.goto(f"{site.url}/jobs/{job_id}")
    page.wait_for_selector("html[data-htmx]")
    page.get_by_text("Cancel…").click()
    tell(session, job_id, Progress(step=Step.QUANTIZE, done=5, total=6, unit="layers"))
    expect(page.locator("#live")).to_contain_text("5 of 6 layers")
    page.get_by_role("button", name="Cancel this job").click()
    expect(page.locator("#live")).to_contain_text("stopping")
    assert service.get_job(session, job_id).state == JobState.CANCELLING


def test_the_log_grows(page: Page, site: Site, job_id: str) -> None:
    page.goto(f"{site.url}/jobs/{job_id}")
    log = page.locator(".log")
    expect(log).to_contain_text("INFO layer 5 of 6")
    with (site.settings.jobs_dir / job_id / "log.txt").open("a") as file:
        file.write("a new line, größer & <b>bold</b>\n")
    expect(log).to_contain_text("a new line, größer & <b>bold</b>")


def test_time_passes_since_it_was_heard_from(page: Page, site: Site, job_id: str) -> None:
    page.goto(f"{site.url}/jobs/{job_id}")
    first = page.locator("time[data-tick=span]").inner_text()
    expect(page.locator("time[data-tick=span]")).not_to_have_text(first)


def test_a_time_that_is_told_once_stays_true(page: Page, site: Site, job_id: str) -> None:
    page.goto(f"{site.url}/jobs/{job_id}")
    submitted = page.get_by_text("submitted").locator("time")
    first = submitted.inner_text()
    submitted.evaluate("time => time.dateTime = new Date(Date.now() - 7200000).toISOString()")
    expect(submitted).to_have_text("2 h ago")
    assert first != "2 h ago"


HIDDEN = "Object.defineProperty(document, 'hidden', {get: () => !window.isSeen})"


def test_tabs_in_the_background_leave_the_connections_to_others(
    page: Page, site: Site, session: Session, job_id: str
) -> None:
    """A browser holds six connections to a server: six streams would let no page through."""
    behind = [page.context.new_page() for _ in range(6)]
    for tab in behind:
        tab.add_init_script(HIDDEN)
        tab.goto(f"{site.url}/jobs/{job_id}")
        tab.wait_for_selector("html[data-htmx]")
        tab.wait_for_timeout(300)  # A stream is asked for as soon as htmx is there.
    page.goto(f"{site.url}/jobs/{job_id}")
    expect(page.locator("#live")).to_contain_text("3 of 6 layers")
    seen = behind[0]
    seen.evaluate("isSeen = true; document.dispatchEvent(new Event('visibilitychange'))")
    tell(session, job_id, Progress(step=Step.QUANTIZE, done=5, total=6, unit="layers"))
    expect(seen.locator("#live")).to_contain_text("5 of 6 layers")
    expect(page.locator("#live")).to_contain_text("5 of 6 layers")
    expect(behind[1].locator("#live")).to_contain_text("3 of 6 layers")


def test_a_server_that_is_gone_is_told_and_found_again(
    new_page: Callable[..., Page], site: Site, session: Session, job_id: str
) -> None:
    page = new_page(may_complain=True)
    note = page.locator("[data-connection=away]")
    with web_process(site.settings.data_dir) as url:
        page.goto(f"{url}/jobs/{job_id}")
        page.wait_for_selector("html[data-htmx]")
        page.wait_for_timeout(500)
        expect(note).to_be_hidden()
    expect(note).to_be_visible()
    port = url.rpartition(":")[2]
    tell(session, job_id, Progress(step=Step.QUANTIZE, done=6, total=6, unit="layers"))
    with web_process(site.settings.data_dir, port):
        expect(page.locator("#live")).to_contain_text("6 of 6 layers")
        expect(note).to_be_hidden()
        with (site.settings.jobs_dir / job_id / "log.txt").open("a") as file:
            file.write("said after the server came back\n")
        expect(page.locator(".log")).to_contain_text("said after the server came back")

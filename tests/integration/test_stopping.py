"""Stopping the server under a running job, retrying it, and cancelling it for real."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import httpx
import psutil
import pytest
from sqlmodel import Session

from app.base_models.service import DEMO_MODEL, add_model
from app.calibration.service import save_set
from app.calibration.starter import software_engineer
from app.database import session_for
from app.jobs import service
from app.jobs.models import Job
from app.jobs.states import JobState
from app.liveness import group_is_gone
from app.settings import Settings
from tests.integration.server import calibrant, serving
from tests.seed import queued_job

DEADLINE_SECONDS = 120.0
# A third of the starter set: still seconds in every layer, in which a job can be stopped.
TOKEN_BUDGET = 20_000
BROWSER = {"accept": "text/html", "sec-fetch-site": "same-origin"}


def fresh(settings: Settings, job_id: str) -> Job:
    with session_for(settings) as session:
        return service.get_job(session, job_id)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


@pytest.fixture
def main_job(session: Session, settings: Settings) -> Job:
    """The demo's job, kept but not sent: the server sends what waits when it starts."""
    model = add_model(session, DEMO_MODEL)
    small = software_engineer().model_copy(update={"token_budget": TOKEN_BUDGET})
    saved = save_set(session, small)
    return queued_job(session, settings, saved, model)


def is_quantizing(settings: Settings, job_id: str) -> bool:
    job = fresh(settings, job_id)
    assert job.state in {JobState.QUEUED, JobState.STARTING, JobState.RUNNING}, job.failure
    return job.step == "quantize"


def has_finished_a_layer(settings: Settings, job_id: str) -> bool:
    return service.finished_layers(fresh(settings, job_id)) > 0


def said_by(settings: Settings, job_id: str) -> str:
    job = fresh(settings, job_id)
    assert job.state in {JobState.QUEUED, JobState.STARTING, JobState.RUNNING}, job.failure
    with session_for(settings) as session:
        events = service.list_events(session, job_id)
    return " ".join(str(e.data.get("message", "")) for e in events if e.type == "notice")


def test_what_is_killed_under_a_running_server_is_started_again(settings: Settings) -> None:
    with serving(settings.data_dir) as server:
        assert server.address
        for name in ("celery", "uvicorn"):
            children = psutil.Process(server.process.pid).children()
            alive = [one for one in children if one.status() != psutil.STATUS_ZOMBIE]
            parts = [one for one in alive if name in " ".join(one.cmdline())]
            assert len(parts) == 1
            parts[0].kill()
        wait_for(lambda: server.everything().count("is started again") == 2)
        wait_for(lambda: answers_at(server.address))
        assert server.process.poll() is None


def answers_at(address: str) -> bool:
    try:
        return httpx.get(f"{address}/healthz", timeout=2.0).is_success
    except httpx.TransportError:
        return False


def test_a_stopped_server_says_lost_and_a_retry_can_be_cancelled(
    settings: Settings, main_job: Job
) -> None:
    with serving(settings.data_dir) as server:
        assert server.address
        wait_for(lambda: is_quantizing(settings, main_job.id))
        child = fresh(settings, main_job.id).child_pid
        assert child is not None
        assert not group_is_gone(child)
    stopped = fresh(settings, main_job.id)
    assert stopped.state == JobState.LOST
    assert stopped.failure is not None
    assert "retry" in stopped.failure
    wait_for(lambda: group_is_gone(child))
    with serving(settings.data_dir) as server:
        assert server.address
        done = calibrant(settings.data_dir, "jobs", "retry", main_job.id, "--json")
        assert done.returncode == 0, done.stderr
        again = json.loads(done.stdout)["job"]["id"]
        wait_for(lambda: is_quantizing(settings, again))
        child = fresh(settings, again).child_pid
        assert child is not None
        wait_for(lambda: has_finished_a_layer(settings, again))
        with httpx.Client(base_url=server.address, headers=BROWSER) as browser:
            assert browser.post(f"/jobs/{again}/cancel").status_code == 303
            wait_for(lambda: fresh(settings, again).state == JobState.CANCELLED)
            assert group_is_gone(child)
            assert psutil.pid_exists(server.process.pid)
            assert "Resume after" in browser.get(f"/jobs/{again}").text
            answer = browser.post(f"/jobs/{again}/resume")
            assert answer.status_code == 303
        third = answer.headers["location"].removeprefix("/jobs/")
        wait_for(lambda: "taken over" in said_by(settings, third))
        cancelled = calibrant(settings.data_dir, "jobs", "cancel", third, "--json")
        assert json.loads(cancelled.stdout)["job"]["state"] == JobState.CANCELLED
        resumed = calibrant(settings.data_dir, "jobs", "resume", third, "--json")
        assert resumed.returncode == 0, resumed.stderr
        fourth = json.loads(resumed.stdout)["job"]
        assert fourth["retry_of"] == third
        calibrant(settings.data_dir, "jobs", "cancel", fourth["id"])
    assert not list(settings.checkpoints_dir.glob("*"))

"""A job's process is claimed, heard, stopped and never left behind."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from pydantic import SecretStr
from sqlmodel import Session

from app.database import session_for, utc_now
from app.jobs import service
from app.jobs.events import parse
from app.jobs.models import Job
from app.jobs.states import JobState
from app.liveness import started_at, this_host
from app.settings import Settings
from tests.integration.rows import add_job
from tests.listener import listening
from workers.supervisor import Command, supervise

CHILD = Path(__file__).parent / "children" / "child.py"
DEADLINE_SECONDS = 30.0


def child(what: str) -> Command:
    root = Path(__file__).resolve().parents[2]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); sys.argv[0] = {str(CHILD)!r}; "
    code += f"import runpy; runpy.run_path({str(CHILD)!r}, run_name='__main__')"
    return lambda directory: [sys.executable, "-c", code, str(directory), what]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def fresh(settings: Settings, job_id: str) -> Job:
    with session_for(settings) as session:
        return service.get_job(session, job_id)


@pytest.fixture
def job(session: Session, settings: Settings) -> Job:
    return add_job(session, settings)


def run_in_thread(settings: Settings, job_id: str, what: str) -> threading.Thread:
    thread = threading.Thread(target=supervise, args=(settings, job_id, child(what)))
    thread.start()
    return thread


def test_events_become_state_history_and_result(settings: Settings, job: Job) -> None:
    supervise(settings, job.id, child("succeed"))
    done = fresh(settings, job.id)
    assert done.state == JobState.SUCCEEDED
    assert done.result is not None
    assert done.result["set_rows"] == 3
    assert (done.progress_done, done.progress_total, done.progress_unit) == (3, 3, "rows")
    with session_for(settings) as session:
        events = service.list_events(session, job.id)
    assert [event.type for event in events] == ["step_started", "notice", "step_finished"]
    assert [event.number for event in events] == [1, 5, 6]
    assert events[-1].data["figures"] == {"rows": 3}


def test_every_event_is_in_one_file_that_can_be_replayed(settings: Settings, job: Job) -> None:
    supervise(settings, job.id, child("succeed"))
    lines = (settings.jobs_dir / job.id / "events.jsonl").read_bytes().splitlines()
    types = [parse(line).type for line in lines]
    assert types == ["step_started", *["progress"] * 3, "notice", "step_finished", "finished"]


def test_a_second_delivery_does_nothing(settings: Settings, job: Job) -> None:
    supervise(settings, job.id, child("succeed"))
    finished = fresh(settings, job.id).finished_at
    supervise(settings, job.id, child("crash"))
    again = fresh(settings, job.id)
    assert again.state == JobState.SUCCEEDED
    assert again.finished_at == finished


def test_two_supervisors_at_once_start_one_child(settings: Settings, job: Job) -> None:
    threads = [run_in_thread(settings, job.id, "succeed") for _ in range(4)]
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    lines = (settings.jobs_dir / job.id / "events.jsonl").read_bytes().splitlines()
    assert len(lines) == 7


def test_a_refusal_is_the_jobs_failure(settings: Settings, job: Job) -> None:
    supervise(settings, job.id, child("refuse"))
    failed = fresh(settings, job.id)
    assert failed.state == JobState.FAILED
    assert failed.failure == "The slice 'Pony' is empty."


def test_a_crash_names_its_last_words(settings: Settings, job: Job) -> None:
    supervise(settings, job.id, child("crash"))
    failed = fresh(settings, job.id)
    assert failed.state == JobState.FAILED
    assert failed.failure is not None
    assert "RuntimeError: the row is missing" in failed.failure
    text, offset = service.read_log(settings, job.id, 0)
    assert "Traceback" in text
    assert service.read_log(settings, job.id, offset) == ("", offset)


def test_a_killed_child_says_by_what(settings: Settings, job: Job) -> None:
    supervise(settings, job.id, child("kill"))
    failure = fresh(settings, job.id).failure
    assert failure is not None
    assert "SIGKILL" in failure


def test_a_line_that_is_no_event_is_passed_over(settings: Settings, job: Job) -> None:
    supervise(settings, job.id, child("babble"))
    assert fresh(settings, job.id).state == JobState.SUCCEEDED


def test_cancel_ends_the_whole_group_before_it_says_cancelled(settings: Settings, job: Job) -> None:
    thread = run_in_thread(settings, job.id, "hold")
    wait_for(lambda: fresh(settings, job.id).state == JobState.RUNNING)
    pids = [int(pid) for pid in (settings.jobs_dir / job.id / "pids").read_text().split()]
    with session_for(settings) as session:
        assert service.cancel(session, job.id).state == JobState.CANCELLING
    while fresh(settings, job.id).state == JobState.CANCELLING:
        time.sleep(0.05)
    assert fresh(settings, job.id).state == JobState.CANCELLED
    for pid in pids:
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    thread.join(DEADLINE_SECONDS)


def test_a_waiting_job_is_cancelled_at_once_and_never_runs(settings: Settings, job: Job) -> None:
    with session_for(settings) as session:
        assert service.cancel(session, job.id).state == JobState.CANCELLED
    supervise(settings, job.id, child("succeed"))
    assert fresh(settings, job.id).state == JobState.CANCELLED
    assert not (settings.jobs_dir / job.id).exists()


def test_a_job_whose_worker_is_gone_is_lost(settings: Settings, session: Session, job: Job) -> None:
    held = {"worker_host": this_host(), "worker_pid": os.getpid(), "heartbeat_at": utc_now()}
    started = started_at(os.getpid())
    moved = service.move(
        session,
        job.id,
        to=JobState.STARTING,
        out_of=[JobState.QUEUED],
        worker_started=started,
        **held,
    )
    assert moved
    assert service.find_lost(session, settings) == []
    # The same pid with another start time is another process.
    row = service.get_job(session, job.id)
    row.worker_started = started - 10
    session.add(row)
    session.commit()
    assert service.find_lost(session, settings) == [job.id]
    assert fresh(settings, job.id).state == JobState.LOST


@pytest.mark.parametrize(("what", "state"), [("succeed", "succeeded"), ("kill", "failed")])
def test_who_waits_is_told_of_the_end(settings: Settings, job: Job, what: str, state: str) -> None:
    with listening() as listener:
        told = settings.model_copy(update={"notify_url": SecretStr(listener.url)})
        supervise(told, job.id, child(what))
        supervise(told, job.id, child(what))  # a second delivery
    assert [(each["job"], each["state"]) for each in listener.heard] == [(job.id, state)]


def test_who_waits_is_told_that_a_worker_is_gone(
    settings: Settings, session: Session, job: Job
) -> None:
    service.move(session, job.id, to=JobState.STARTING, out_of=[JobState.QUEUED], worker_host="x")
    with listening() as listener:
        told = settings.model_copy(update={"notify_url": SecretStr(listener.url)})
        assert service.find_lost(session, told) == [job.id]
        assert service.find_lost(session, told) == []
    assert [(each["job"], each["state"]) for each in listener.heard] == [(job.id, "lost")]

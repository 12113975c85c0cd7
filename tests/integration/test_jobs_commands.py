"""``calibrant jobs`` against the data directory and against a server: the same documents."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from sqlmodel import Session

from app.database import utc_now
from app.jobs import service
from app.jobs.models import Job
from app.jobs.states import JobState
from app.liveness import this_host
from app.settings import Settings
from tests.integration.rows import add_job
from tests.integration.server import calibrant, serving


@pytest.fixture
def failed(session: Session, settings: Settings) -> Job:
    job = add_job(session, settings)
    directory = settings.jobs_dir / job.id
    directory.mkdir(parents=True)
    (directory / "log.txt").write_text("première ligne\nsecond line\n", encoding="utf-8")
    service.move(session, job.id, to=JobState.STARTING, out_of=[JobState.QUEUED])
    service.move(
        session,
        job.id,
        to=JobState.FAILED,
        out_of=[JobState.STARTING],
        failure="The slice is empty.",
        finished_at=utc_now(),
    )
    return service.get_job(session, job.id)


def document(settings: Settings, *arguments: str, **more: str) -> dict[str, object]:
    done = calibrant(settings.data_dir, *arguments, "--json", **more)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_local_commands_say_one_document(settings: Settings, failed: Job) -> None:
    listed = document(settings, "jobs", "list")
    assert [job["id"] for job in listed["jobs"]] == [failed.id]  # type: ignore[attr-defined]
    shown = document(settings, "jobs", "show", failed.id)
    assert shown["job"]["failure"] == "The slice is empty."  # type: ignore[index]
    log = document(settings, "jobs", "logs", failed.id)
    assert log["text"] == "première ligne\nsecond line\n"
    rest = document(settings, "jobs", "logs", failed.id, "--offset", "16")
    assert rest["text"] == "second line\n"


def test_a_job_whose_worker_is_gone_is_never_said_to_run(
    settings: Settings, session: Session
) -> None:
    """The server was killed and nobody has started it again."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    job = add_job(session, settings)
    claimed = {"worker_host": this_host(), "worker_pid": gone.pid, "worker_started": 0.0}
    service.move(session, job.id, to=JobState.STARTING, out_of=[JobState.QUEUED], **claimed)
    listed = document(settings, "jobs", "list")
    assert [one["state"] for one in listed["jobs"]] == ["lost"]  # type: ignore[attr-defined]


def test_unknown_jobs_and_impossible_wishes_are_refused(settings: Settings, failed: Job) -> None:
    unknown = calibrant(settings.data_dir, "jobs", "show", "nope")
    assert (unknown.returncode, unknown.stderr.strip()) == (2, "There is no job 'nope'.")
    ended = calibrant(settings.data_dir, "jobs", "cancel", failed.id)
    assert ended.returncode == 2
    assert "nothing to cancel" in ended.stderr


def test_a_server_gives_the_same_documents(settings: Settings, failed: Job, tmp_path: Path) -> None:
    token = {"CALIBRANT_TOKEN": "s3cret"}
    with serving(settings.data_dir, "up", "--port", "0", "--host", "127.0.0.1", **token) as server:
        address = server.address
        local = document(settings, "jobs", "show", failed.id)
        there = ["--server", address, "jobs"]
        assert document(settings, *there, "show", failed.id, **token) == local
        assert document(settings, *there, "list", **token)["total"] == 1
        refused = calibrant(tmp_path, *there, "list", CALIBRANT_TOKEN="guess")
        assert refused.returncode == 2
        assert "token" in refused.stderr
        unknown = calibrant(tmp_path, *there, "show", "nope", **token)
        assert (unknown.returncode, unknown.stderr.strip()) == (2, "There is no job 'nope'.")
        submit = ("submit", "--set", "nope", "--model", "nope")
        sent = calibrant(tmp_path, *there, *submit, **token)
        assert sent.returncode == 2, "the server's refusal, not this machine's job"
        assert "no calibration set 'nope'" in sent.stderr
        here = calibrant(tmp_path, "--server", address, "sets", "list", **token)
        assert (here.returncode, here.stdout) == (2, "")
        assert address in here.stderr
        assert not (tmp_path / "calibrant.sqlite3").exists()
        deleted = document(settings, *there, "delete", failed.id, **token)
        assert deleted == {"id": failed.id, "freed_bytes": 28}
        again = calibrant(tmp_path, *there, "delete", failed.id, **token)
        assert (again.returncode, again.stderr.strip()) == (2, f"There is no job '{failed.id}'.")
    gone = calibrant(tmp_path, *there, "list", **token)
    assert gone.returncode == 1
    assert "does not answer" in gone.stderr


def test_following_a_log_ends_with_the_job(settings: Settings, failed: Job) -> None:
    began = time.monotonic()
    followed = calibrant(settings.data_dir, "jobs", "logs", failed.id, "--follow")
    assert followed.stdout == "première ligne\nsecond line\n"
    assert time.monotonic() - began < 60

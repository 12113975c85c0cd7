"""Web, worker and broker come up together, go down together, and find their jobs again."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest
from sqlmodel import Session

from app.broker import answers, client_for
from app.database import session_for, utc_now
from app.errors import BrokerGone
from app.jobs import service
from app.jobs.models import Job
from app.jobs.states import JobState
from app.liveness import this_host
from app.settings import Settings
from tests.integration.rows import add_job
from tests.integration.server import calibrant, serving

DEADLINE_SECONDS = 60.0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def fresh(settings: Settings, job_id: str) -> Job:
    with session_for(settings) as session:
        return service.get_job(session, job_id)


def test_up_serves_and_ctrl_c_leaves_no_process(settings: Settings) -> None:
    with serving(settings.data_dir) as server:
        assert httpx.get(f"{server.address}/healthz").json() == {"status": "ok"}
        assert answers(settings)
        family = psutil.Process(server.process.pid).children(recursive=True)
        assert len(family) >= 3
        os.killpg(server.process.pid, signal.SIGINT)
        server.process.wait(DEADLINE_SECONDS)
        assert not any(one.is_running() for one in family), server.everything()
    assert not answers(settings)


def test_a_taken_port_is_one_sentence(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = calibrant(settings.data_dir, "up", "--port", str(port))
    assert refused.returncode == 2
    assert refused.stderr.strip().splitlines()[-1].startswith(f"Port {port} on 127.0.0.1")


def test_a_public_address_without_a_token_is_refused(settings: Settings) -> None:
    refused = calibrant(settings.data_dir, "up", "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 2
    assert "CALIBRANT_TOKEN" in refused.stderr


def test_a_broker_that_does_not_answer_is_one_sentence(settings: Settings) -> None:
    nowhere = "redis://:s3cret@127.0.0.1:1/0"
    refused = calibrant(settings.data_dir, "up", "--port", "0", REDIS_URL=nowhere)
    assert refused.returncode == 2
    assert "does not answer" in refused.stderr
    assert "s3cret" not in refused.stderr


def test_a_job_submitted_without_a_broker_is_kept(session: Session, settings: Settings) -> None:
    job = add_job(session, settings)
    with pytest.raises(BrokerGone, match="kept as queued"):
        service.submit(session, settings, job)
    assert fresh(settings, job.id).state == JobState.QUEUED


def test_a_restart_runs_what_waits_and_names_what_is_lost(
    session: Session, settings: Settings
) -> None:
    waiting, held = add_job(session, settings), add_job(session, settings)
    service.move(
        session,
        held.id,
        to=JobState.STARTING,
        out_of=[JobState.QUEUED],
        worker_host=this_host(),
        worker_pid=2**22 + 1,  # Past the kernel's largest pid.
        worker_started=1.0,
        heartbeat_at=utc_now(),
    )
    with serving(settings.data_dir) as server:
        assert server.address
        assert fresh(settings, held.id).state == JobState.LOST
        wait_for(lambda: fresh(settings, waiting.id).state == JobState.FAILED)
    failure = fresh(settings, waiting.id).failure
    assert failure is not None
    assert f"/{waiting.id}" in failure  # The model's path, which does not exist.


def test_the_broker_outlives_a_crash_and_is_adopted(settings: Settings) -> None:
    with serving(settings.data_dir) as server:
        assert server.address
        family = psutil.Process(server.process.pid).children(recursive=True)
        with client_for(settings) as client:
            first = client.info("server")["run_id"]
        server.process.kill()
        server.process.wait(DEADLINE_SECONDS)
        gone = [one for one in family if "valkey" not in one.name()]
        wait_for(lambda: not any(one.is_running() for one in gone))
    with serving(settings.data_dir) as server:
        assert server.address
        with client_for(settings) as client:
            assert client.info("server")["run_id"] == first
        second = calibrant(settings.data_dir, "up", "--port", "0")
        assert second.returncode == 2
        assert "Another calibrant runs" in second.stderr
    assert not answers(settings)


def test_the_broker_keeps_its_messages_over_a_restart(settings: Settings) -> None:
    with serving(settings.data_dir) as server:
        assert server.address
        with client_for(settings) as client:
            client.rpush("kept", "message")
    with serving(settings.data_dir) as server:
        assert server.address
        with client_for(settings) as client:
            assert client.lrange("kept", 0, -1) == [b"message"]


def test_the_data_directory_may_be_deep(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    with serving(deep) as server:
        assert httpx.get(f"{server.address}/healthz").is_success

"""Who waits for a job is told of its end, and a job does not care whether that worked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from app.jobs.models import Job
from app.jobs.telling import tell_of_end
from app.settings import Settings
from tests.listener import Listener, listening


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as found:
        yield found


def ended(**changes: object) -> Job:
    started = datetime(2026, 1, 1, tzinfo=UTC)
    values = {
        "id": "a1b2c3d4e5f6",
        "kind": "quantize",
        "state": "succeeded",
        "name": "starter on demo",
        "set_id": "s",
        "model_id": "m",
        "started_at": started,
        "finished_at": started + timedelta(hours=10, minutes=2),
    }
    return Job(**{**values, **changes})


def told(settings: Settings, url: str, job: Job) -> None:
    tell_of_end(settings.model_copy(update={"notify_url": SecretStr(url)}), job)


def test_the_end_of_a_job_is_told(settings: Settings, listener: Listener) -> None:
    told(settings, listener.url, ended())
    (document,) = listener.heard
    sentence = "starter on demo: quantize job a1b2c3d4e5f6 succeeded after 10 h 02 min."
    assert document["text"] == document["content"] == sentence
    assert (document["job"], document["state"]) == ("a1b2c3d4e5f6", "succeeded")


def test_why_a_job_failed_is_told(settings: Settings, listener: Listener) -> None:
    told(settings, listener.url, ended(state="failed", failure="The disk is full."))
    assert listener.heard[0]["text"].endswith("failed after 10 h 02 min. The disk is full.")
    assert listener.heard[0]["failure"] == "The disk is full."


@pytest.mark.parametrize("answer", [404, 500])
def test_a_refusal_is_logged_without_the_address(
    settings: Settings, listener: Listener, answer: int
) -> None:
    listener.answer = answer
    with capture_logs() as logs:
        told(settings, listener.url, ended())
    assert [(each["event"], each["answered"]) for each in logs] == [("nobody told", answer)]
    assert "secret" not in str(logs)


def test_nobody_there_is_logged(settings: Settings) -> None:
    with capture_logs() as logs:
        told(settings, "http://127.0.0.1:9/secret", ended())
    assert logs[0]["reason"] == "ConnectError"
    assert "secret" not in str(logs)


def test_without_an_address_nobody_is_told(settings: Settings, listener: Listener) -> None:
    with capture_logs() as logs:
        tell_of_end(settings, ended())
    assert (logs, listener.heard) == ([], [])

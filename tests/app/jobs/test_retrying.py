"""The same work is not tried again twice at a time, and two jobs alike know of each other."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session

from app.base_models.models import BaseModelRecord
from app.base_models.service import add_model
from app.calibration.models import CalibrationSet
from app.calibration.service import save_set
from app.jobs import service
from app.jobs.states import JobState
from app.settings import Settings
from tests.seed import queued_job, small_spec
from tests.seeded_model import write_model

NO_BROKER = 503


@pytest.fixture
def ended(session: Session, settings: Settings, tmp_path: Path) -> str:
    """A cancelled job."""
    model = add_model(session, write_model(tmp_path / "tiny"))
    job = queued_job(session, settings, save_set(session, small_spec()), model)
    return service.cancel(session, job.id).id


def _retried(client: TestClient, job_id: str) -> str:
    """The id of a retry; no broker runs here to be sent to, so that it waits."""
    assert client.post(f"/jobs/{job_id}/retry").status_code == NO_BROKER
    return client.get("/jobs").json()["jobs"][0]["id"]


@pytest.mark.parametrize("action", ["retry", "restart"])
def test_a_second_tab_does_not_start_the_same_again(
    client: TestClient, html: dict, ended: str, action: str
) -> None:
    again = _retried(client, ended)
    refused = client.post(f"/jobs/{ended}/{action}")
    assert refused.status_code == 409
    assert refused.json()["error"] == (
        f"Job {again} does the work of job {ended} again already and is queued: "
        "wait for its end, or cancel it first."
    )
    shown = client.post(f"/jobs/{ended}/{action}", headers=html)
    assert shown.status_code == 409
    assert "wait for its end" in shown.text
    assert f'id="again" role="button" href="/jobs/{again}"' in shown.text
    assert f"/jobs/{ended}/retry" not in shown.text
    assert client.get("/jobs").json()["total"] == 2

    client.post(f"/jobs/{again}/cancel")
    page = client.get(f"/jobs/{ended}", headers=html).text
    assert f"/jobs/{ended}/retry" in page
    assert 'id="again"' not in page
    assert _retried(client, ended) != again


def test_what_a_retry_s_retry_does_is_the_same_work(client: TestClient, ended: str) -> None:
    second = _retried(client, ended)
    client.post(f"/jobs/{second}/cancel")
    third = _retried(client, second)
    for stale in (ended, second):
        refused = client.post(f"/jobs/{stale}/retry")
        assert refused.json()["error"].startswith(f"Job {third} does the work of job {stale}")
    client.post(f"/jobs/{third}/cancel")
    fourth = _retried(client, ended)
    assert client.post(f"/jobs/{third}/retry").json()["error"].startswith(f"Job {fourth} does")


def test_two_jobs_alike_know_of_each_other(
    session: Session, settings: Settings, client: TestClient, html: dict, ended: str
) -> None:
    job = service.get_job(session, ended)
    saved = session.get_one(CalibrationSet, job.set_id)
    model = session.get_one(BaseModelRecord, job.model_id)
    other = queued_job(session, settings, saved, model, "experts-w4a16-g32-attn8")
    one, two = (queued_job(session, settings, saved, model) for _ in range(2))
    twins = {each.id: client.get(f"/jobs/{each.id}").json()["twin"] for each in (other, one, two)}
    assert twins == {other.id: None, one.id: two.id, two.id: one.id}
    page = client.get(f"/jobs/{two.id}", headers=html).text
    assert f'<a href="/jobs/{one.id}">' in page
    service.move(session, one.id, to=JobState.CANCELLED, out_of=[JobState.QUEUED])
    assert 'id="twin"' not in client.get(f"/jobs/{two.id}", headers=html).text

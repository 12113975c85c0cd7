from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient
from sqlmodel import Session

from app.base_models.service import add_model
from app.calibration.service import save_set
from app.database import utc_now
from app.jobs import service
from app.jobs.states import JobKind, JobState
from app.settings import Settings
from tests.seed import small_spec
from tests.seeded_model import write_model


def test_an_empty_installation_offers_the_first_step(client: TestClient, html: dict) -> None:
    page = client.get("/", headers=html)
    assert page.status_code == 200
    assert 'role="button" href="/models"' in page.text
    assert "Latest result" not in page.text


def test_the_overview_says_what_runs_and_how_good_it_is(filled, html: dict) -> None:
    page = filled.client.get("/", headers=html).text
    assert "running" in page
    assert "0.003041" in page
    assert "nats a token" in page
    assert f"/checkpoints/{filled.seeded.jobs['succeeded']}" in page


def test_the_json_twin_has_the_same_figures(filled) -> None:
    view = filled.client.get("/").json()
    assert {job["state"] for job in view["active"]} == {"running", "queued"}
    assert view["latest"]["experts_total"] == 6 * 32
    assert view["latest"]["evaluation"]["kl_mean"] == 0.003041
    assert view["model_id"] == filled.seeded.model_id


def test_csv_of_a_page_without_a_table_is_refused_with_a_sentence(client: TestClient) -> None:
    answer = client.get("/?format=csv")
    assert answer.status_code == 422
    assert "has no table" in answer.json()["error"]


def test_an_unknown_format_is_refused(client: TestClient) -> None:
    answer = client.get("/?format=xml")
    assert answer.status_code == 422
    assert "'xml'" in answer.json()["error"]


def test_only_get(client: TestClient) -> None:
    assert client.post("/").status_code == 405


def test_the_latest_result_is_a_quantize_jobs(
    client: TestClient, session: Session, settings: Settings, html: dict, tmp_path: Path
) -> None:
    """An audit that ended later has none of the figures, nor the pages they lead to."""
    model = add_model(session, write_model(tmp_path / "tiny"))
    saved = save_set(session, small_spec())
    ids = []
    for kind, recipe in ((JobKind.QUANTIZE, "experts-w4a16-g32"), (JobKind.AUDIT, None)):
        job = service.compose_job(
            session, settings, kind=kind, set_id=saved.id, model_id=model.id, recipe=recipe
        )
        job.state = JobState.SUCCEEDED
        job.started_at = job.finished_at = utc_now()
        session.add(job)
        session.commit()
        ids.append(job.id)
    assert client.get("/").json()["latest"]["job"]["id"] == ids[0]
    page = client.get("/", headers=html).text
    assert f"/jobs/{ids[0]}/coverage" in page
    assert f"/jobs/{ids[1]}/coverage" not in page


def test_what_runs_is_not_said_twice(filled) -> None:
    view = filled.client.get("/").json()
    assert view["recent"]
    assert all(job["is_final"] for job in view["recent"])

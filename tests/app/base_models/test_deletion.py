"""Taking models off the list."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session
from typer.testing import CliRunner

from app.base_models.service import add_model, list_models
from app.calibration.service import save_set
from app.cli import app as calibrant
from app.jobs import deletion as jobs_deletion
from app.jobs import service as jobs
from app.settings import Settings
from tests.app.conftest import client_of
from tests.seed import queued_job, small_spec
from tests.seeded_model import write_model


def test_a_model_leaves_the_list_and_its_directory_stays(
    client: TestClient, html: dict[str, str], tmp_path: Path
) -> None:
    directory = write_model(tmp_path / "tiny")
    address = client.post("/models", data={"path": str(directory)}, headers=html).headers[
        "location"
    ]
    assert "Its directory stays" in client.get(address, headers=html).text
    gone = client.post(f"{address}/delete", headers=html)
    assert (gone.status_code, gone.headers["location"]) == (303, "/models")
    assert client.get(address).status_code == 404
    assert client.post(f"{address}/delete").status_code == 404
    assert (directory / "config.json").is_file()
    assert client.post("/models", json={"path": str(directory)}).status_code == 201


def test_a_model_that_a_kept_job_used_is_kept(
    session: Session, settings: Settings, html: dict[str, str], tmp_path: Path
) -> None:
    model = add_model(session, write_model(tmp_path / "tiny"))
    model_id = model.id
    job = queued_job(session, settings, save_set(session, small_spec()), model)
    client, address, sentence = client_of(settings), f"/models/{model_id}", f"job {job.id}: delete"
    assert sentence in client.get(address).json()["deletion"]["obstacle"]
    refused = client.post(f"{address}/delete", headers=html)
    assert (refused.status_code, sentence in refused.text) == (409, True)
    assert sentence in client.post(f"{address}/delete").json()["error"]
    jobs.cancel(session, job.id)
    jobs_deletion.delete(session, settings, job.id)
    assert client.post(f"{address}/delete").json() == {"id": model_id, "freed_bytes": 0}


def test_the_command_says_what_it_did(
    session: Session, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CALIBRANT_DATA_DIR", str(settings.data_dir))
    model_id = add_model(session, write_model(tmp_path / "tiny")).id
    done = CliRunner().invoke(calibrant, ["models", "delete", model_id])
    assert (done.exit_code, done.stdout) == (0, f"{model_id} is off the list\n")
    assert list_models(session) == []

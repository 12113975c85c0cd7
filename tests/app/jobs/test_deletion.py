"""Deleting jobs: what goes, what stays, what stands in the way, and what a crash leaves."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session, func, select
from typer.testing import CliRunner

from app.base_models.service import add_model
from app.calibration.service import save_set
from app.checkpoints.models import Checkpoint
from app.cli import app as calibrant
from app.database import session_for
from app.errors import CalibrantError, Conflict, NotFound, NotRemoved
from app.jobs import deletion, service
from app.jobs.models import Job, JobEvent
from app.jobs.retrying import retry
from app.settings import Settings
from tests.app.conftest import Filled, client_of
from tests.seed import queued_job, small_spec
from tests.seeded_model import write_model

PATIENCE_SECONDS = 30.0


@pytest.fixture
def changeable(filled: Filled, tmp_path: Path) -> Filled:
    """A copy of the filled installation, to delete from."""
    settings = Settings(data_dir=tmp_path / "copy", assets="local")
    shutil.copytree(filled.settings.data_dir, settings.data_dir)
    return Filled(settings, filled.seeded, client_of(settings))


@pytest.fixture
def ended(session: Session, settings: Settings, tmp_path: Path) -> str:
    """A cancelled job with two finished layers of 100 bytes each and the record before them."""
    model = add_model(session, write_model(tmp_path / "tiny"))
    job = queued_job(session, settings, save_set(session, small_spec()), model)
    _layers(settings, job.id)
    return service.cancel(session, job.id).id


def _layers(settings: Settings, job_id: str) -> None:
    layers = settings.jobs_dir / job_id / "layers"
    layers.mkdir(parents=True)
    for number in range(3):
        (layers / f"layer-{number:04d}.json").write_bytes(b"{}")
        (layers / f"layer-{number:04d}.safetensors").write_bytes(b"0" * 98)


def _retried(session: Session, settings: Settings, job_id: str) -> str:
    """A retry of a job as ``retrying.retry`` composes it; no broker runs here to be sent to."""
    with pytest.raises(CalibrantError, match="does not answer"):
        retry(session, settings, job_id)
    [again] = session.exec(select(Job).where(Job.retry_of == job_id)).all()
    return again.id


def test_a_job_goes_with_its_rows_and_files(changeable: Filled, html: dict[str, str]) -> None:
    settings, job_id = changeable.settings, changeable.seeded.jobs["succeeded"]
    page = changeable.client.get(f"/jobs/{job_id}", headers=html).text
    assert f'action="/jobs/{job_id}/delete"' in page
    shown = changeable.client.get(f"/jobs/{job_id}").json()["deletion"]
    assert shown["obstacle"] is None
    places = (settings.jobs_dir / job_id, settings.checkpoints_dir / job_id)
    on_disk = sum(f.stat().st_size for place in places for f in place.rglob("*") if f.is_file())
    assert shown["freed_bytes"] == on_disk > 100_000

    answer = changeable.client.post(f"/jobs/{job_id}/delete", headers=html)
    assert (answer.status_code, answer.headers["location"]) == (303, "/jobs")
    assert not any(place.exists() for place in places)
    assert list(settings.jobs_dir.glob(".*")) == []
    with session_for(settings) as session:
        for table in (JobEvent, Checkpoint):
            of_job = select(func.count()).select_from(table).where(table.job_id == job_id)
            assert session.exec(of_job).one() == 0
        assert session.get(Job, job_id) is None
    for address in (f"/jobs/{job_id}", f"/jobs/{job_id}/coverage", f"/checkpoints/{job_id}"):
        assert changeable.client.get(address).status_code == 404
    listed = changeable.client.get("/jobs").json()["jobs"]
    assert job_id not in [job["id"] for job in listed]
    for address in ("/", "/jobs", "/checkpoints", f"/sets/{changeable.seeded.set_id}", "/sets"):
        assert changeable.client.get(address, headers=html).status_code == 200
    assert changeable.client.post(f"/jobs/{job_id}/delete").status_code == 404


@pytest.mark.parametrize("state", ["running", "queued"])
def test_a_job_that_has_not_ended_is_cancelled_first(
    changeable: Filled, html: dict[str, str], state: str
) -> None:
    job_id = changeable.seeded.jobs[state]
    page = changeable.client.get(f"/jobs/{job_id}", headers=html).text
    assert "/delete" not in page
    refused = changeable.client.post(f"/jobs/{job_id}/delete", headers=html)
    assert refused.status_code == 409
    assert f"Job {job_id} is {state}: cancel it first." in refused.text
    assert changeable.client.post(f"/jobs/{job_id}/delete").json() == {
        "error": f"Job {job_id} is {state}: cancel it first."
    }
    assert changeable.client.get(f"/jobs/{job_id}").status_code == 200


def test_only_what_lies_nowhere_else_is_freed(
    session: Session, settings: Settings, ended: str
) -> None:
    layers, job = settings.jobs_dir / ended / "layers", service.get_job(session, ended)
    assert deletion.deletion_of(session, settings, job).freed_bytes == 300
    os.link(layers / "layer-0000.safetensors", settings.data_dir / "elsewhere")
    os.link(layers / "layer-0001.safetensors", layers / "twice")
    assert deletion.deletion_of(session, settings, job).freed_bytes == 202
    assert deletion.delete(session, settings, ended).freed_bytes == 202
    assert (settings.data_dir / "elsewhere").stat().st_size == 98


def test_finished_layers_that_a_retry_needs_are_kept(
    session: Session, settings: Settings, ended: str
) -> None:
    again = _retried(session, settings, ended)
    with pytest.raises(Conflict, match=f"Job {again} goes on after the finished layers"):
        deletion.delete(session, settings, ended)
    service.cancel(session, again)
    with pytest.raises(Conflict, match=f"Job {again} can be resumed after.*delete job"):
        deletion.delete(session, settings, ended)
    assert service.get_job(session, again).retry_of == ended
    assert service.finished_layers(service.get_job(session, ended)) == 2

    # With layers of its own it needs the others no more; it stays, and says nothing that is gone.
    _layers(settings, again)
    deletion.delete(session, settings, ended)
    assert service.get_job(session, again).retry_of is None
    assert service.finished_layers(service.get_job(session, again)) == 2


def test_a_checkpoint_that_is_a_model_is_kept(
    session: Session, settings: Settings, ended: str
) -> None:
    add_model(session, write_model(settings.checkpoints_dir / ended))
    with pytest.raises(Conflict, match="is the checkpoint of job"):
        deletion.delete(session, settings, ended)
    assert (settings.checkpoints_dir / ended / "config.json").is_file()


def test_a_link_is_removed_and_not_what_it_leads_to(
    session: Session, settings: Settings, ended: str, tmp_path: Path
) -> None:
    (tmp_path / "large disk").mkdir()
    (tmp_path / "large disk" / "model.safetensors").write_bytes(b"0" * 10)
    settings.checkpoints_dir.mkdir()
    (settings.checkpoints_dir / ended).symlink_to(tmp_path / "large disk")
    deletion.delete(session, settings, ended)
    assert not (settings.checkpoints_dir / ended).is_symlink()
    assert (tmp_path / "large disk" / "model.safetensors").is_file()


def test_stopped_before_the_rows_are_gone_nothing_is_lost(
    session: Session, settings: Settings, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(session, "commit", full)
        with pytest.raises(OSError, match="No space left"):
            deletion.delete(session, settings, ended)
    assert deletion.finish_deletions(session, settings) == []
    assert service.finished_layers(service.get_job(session, ended)) == 2
    deletion.delete(session, settings, ended)
    assert list(settings.jobs_dir.iterdir()) == []


def test_stopped_before_the_files_are_gone_they_go_later(
    session: Session, settings: Settings, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(_place: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise OSError(13, "Permission denied", "layer-0000.json")

    with monkeypatch.context() as broken:
        broken.setattr(shutil, "rmtree", stuck)
        with pytest.raises(NotRemoved, match=r"layer-0000.json cannot be removed \(Permission"):
            deletion.delete(session, settings, ended)
    with pytest.raises(NotFound):
        service.get_job(session, ended)
    assert (settings.jobs_dir / ended).is_dir()
    (settings.jobs_dir / "nobody knows it").mkdir()
    assert deletion.finish_deletions(session, settings) == [ended]
    assert [place.name for place in settings.jobs_dir.iterdir()] == ["nobody knows it"]
    assert deletion.finish_deletions(session, settings) == []


def test_the_server_finishes_deletions_when_it_starts(
    session: Session, settings: Settings, ended: str
) -> None:
    marker = settings.jobs_dir / f"{deletion.MARKER}{ended}"
    session.delete(service.get_job(session, ended))
    session.commit()
    marker.touch()
    with TestClient(client_of(settings).app, base_url="http://127.0.0.1") as client:
        assert client.get("/healthz").status_code == 200
        deadline = time.monotonic() + PATIENCE_SECONDS
        while marker.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
    assert list(settings.jobs_dir.iterdir()) == []


def test_the_command_says_what_it_freed(session: Session, settings: Settings, ended: str) -> None:
    def run(*arguments: str) -> Any:
        given = ["--data-dir", str(settings.data_dir), "jobs", "delete", *arguments]
        return CliRunner().invoke(calibrant, given)

    again = _retried(session, settings, ended)
    refused = run(ended, "--json")
    assert isinstance(refused.exception, Conflict)
    assert refused.exception.exit_code == 2
    service.cancel(session, again)
    assert run(again).stdout == f"{again} deleted, 0 B freed\n"
    deleted = run(ended, "--json")
    assert json.loads(deleted.stdout) == {"id": ended, "freed_bytes": 300}
    assert isinstance(run(ended).exception, NotFound)
    assert service.count_jobs(session) == 0

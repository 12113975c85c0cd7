"""Deleting sets: what was built from one goes with it, what a kept job or set needs stays."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session
from typer.testing import CliRunner

from app.base_models.models import BaseModelRecord
from app.base_models.service import add_model
from app.calibration import deletion
from app.calibration.building import build_set
from app.calibration.built_set import BuiltSet
from app.calibration.held_out import held_out_for, is_held_out_of
from app.calibration.service import count_sets, get_set, index_for, save_set
from app.calibration.spec import SetSpec
from app.cli import app as calibrant
from app.errors import Conflict, NotFound, NotRemoved
from app.jobs import deletion as jobs_deletion
from app.jobs import service as jobs
from app.settings import Settings
from tests.app.conftest import client_of
from tests.seed import queued_job, small_spec
from tests.seeded_model import write_model


@pytest.fixture
def model(session: Session, tmp_path: Path) -> BaseModelRecord:
    return add_model(session, write_model(tmp_path / "tiny"))


def built(settings: Settings, spec: SetSpec, model: BaseModelRecord) -> BuiltSet:
    return build_set(
        spec,
        tokenizer_dir=Path(model.path),
        sets_dir=settings.sets_dir,
        index_dir=settings.index_dir,
    )


def sibling(settings: Settings, spec: SetSpec, model: BaseModelRecord) -> SetSpec:
    found = held_out_for(spec, index_for(settings, spec, Path(model.path)))
    assert found is not None
    return found


def size_of(*directories: Path) -> int:
    return sum(file.stat().st_size for one in directories for file in one.rglob("*"))


def test_a_set_goes_with_what_was_built_from_it(
    session: Session, settings: Settings, model: BaseModelRecord, html: dict[str, str]
) -> None:
    saved = save_set(session, small_spec())
    own = built(settings, small_spec(), model)
    held_out = built(settings, sibling(settings, small_spec(), model), model)
    other = built(settings, small_spec().model_copy(update={"seed": 8}), model)
    client = client_of(settings)
    freed = size_of(own.directory, held_out.directory)
    shown = client.get(f"/sets/{saved.id}").json()["deletion"]
    assert shown == {"freed_bytes": freed, "obstacle": None}
    assert f'action="/sets/{saved.id}/delete"' in client.get(f"/sets/{saved.id}", headers=html).text

    answer = client.post(f"/sets/{saved.id}/delete", headers=html)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sets")
    there = [one.name for one in settings.sets_dir.iterdir() if not one.name.startswith(".")]
    assert there == [other.id]
    assert client.get(f"/sets/{saved.id}").status_code == 404
    assert client.post(f"/sets/{saved.id}/delete").status_code == 404
    assert client.get("/sets").json()["total"] == 0


def test_a_set_that_a_job_used_is_kept_until_the_job_is_gone(
    session: Session, settings: Settings, model: BaseModelRecord, html: dict[str, str]
) -> None:
    saved = save_set(session, small_spec())
    own = built(settings, small_spec(), model)
    job_id = jobs.cancel(session, queued_job(session, settings, saved, model).id).id
    sentence = f"The set '{saved.name}' is used by job {job_id}: delete it first."
    client = client_of(settings)
    refused = client.post(f"/sets/{saved.id}/delete")
    assert (refused.status_code, refused.json()) == (409, {"error": sentence})
    page = client.post(f"/sets/{saved.id}/delete", headers=html)
    assert (page.status_code, page.text.count(f"job {job_id}: delete it first.")) == (409, 2)
    assert own.manifest_file.is_file()

    jobs_deletion.delete(session, settings, job_id)
    assert deletion.delete(session, settings, saved.id).freed_bytes > 0
    assert not own.directory.exists()


def test_what_another_set_or_job_needs_stays(
    session: Session, settings: Settings, model: BaseModelRecord
) -> None:
    """Two sets of one name whose held-out siblings are the same: the first one's goes last."""
    first = save_set(session, small_spec())
    second = save_set(session, small_spec().model_copy(update={"min_tokens": 0, "max_length": 400}))
    judged = sibling(settings, small_spec(), model)
    held_out = built(settings, judged, model)
    job = queued_job(session, settings, second, model)
    job.spec = {**job.spec, "held_out": judged.model_dump(mode="json")}
    session.add(job)
    session.commit()
    job_id = jobs.cancel(session, job.id).id
    deletion.delete(session, settings, first.id)
    assert held_out.manifest_file.is_file()
    jobs_deletion.delete(session, settings, job_id)
    deletion.delete(session, settings, second.id)
    assert not held_out.directory.exists()


def test_stopped_half_way_a_build_is_not_shown_and_goes_later(
    session: Session, settings: Settings, model: BaseModelRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = save_set(session, small_spec())
    own = built(settings, small_spec(), model)

    def stuck(_place: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise OSError(13, "Permission denied", "rows.parquet")

    with monkeypatch.context() as broken:
        broken.setattr(shutil, "rmtree", stuck)
        with pytest.raises(NotRemoved, match=r"rows\.parquet cannot be removed"):
            deletion.delete(session, settings, saved.id)
    session.rollback()
    client = TestClient(client_of(settings).app, base_url="http://127.0.0.1")
    assert client.get(f"/sets/{saved.id}").json()["versions"] == []
    assert built(settings, small_spec(), model).id == own.id
    assert deletion.finish_deletions(settings) == [own.id]
    assert own.manifest_file.is_file()
    deletion.delete(session, settings, saved.id)
    assert not own.directory.exists()
    assert deletion.finish_deletions(settings) == []


def test_the_held_out_sibling_is_known_by_what_it_shares(
    settings: Settings, model: BaseModelRecord
) -> None:
    spec = small_spec().model_dump(mode="json")
    judged = sibling(settings, small_spec(), model).model_dump(mode="json")
    assert is_held_out_of(judged, spec)
    assert not is_held_out_of(judged | {"seed": 8}, spec)
    assert not is_held_out_of(judged | {"name": "another, held out"}, spec)
    assert not is_held_out_of(spec, spec)


def test_the_command(session: Session, settings: Settings) -> None:
    saved_id = save_set(session, small_spec()).id
    given = ["--data-dir", str(settings.data_dir), "sets", "delete", saved_id]
    done = CliRunner().invoke(calibrant, [*given, "--json"])
    assert json.loads(done.stdout) == {"id": saved_id, "freed_bytes": 0}
    session.expire_all()
    assert count_sets(session) == 0
    gone = CliRunner().invoke(calibrant, given)
    assert isinstance(gone.exception, NotFound)
    with pytest.raises(NotFound):
        get_set(session, saved_id)


def test_a_build_of_no_saved_set_is_deleted_by_its_own_id(
    session: Session, settings: Settings, model: BaseModelRecord
) -> None:
    """As ``sets build FILE.yaml`` leaves one."""
    own = built(settings, small_spec(), model)
    held_out = built(settings, sibling(settings, small_spec(), model), model)
    saved = save_set(session, small_spec())
    for build in (own, held_out):
        with pytest.raises(Conflict, match=f"{build.id} was built from the set {saved.id}"):
            deletion.delete(session, settings, build.id)
    session.delete(saved)
    session.commit()
    freed = size_of(own.directory)
    assert deletion.delete(session, settings, own.id).freed_bytes == freed
    assert not own.directory.exists()
    assert held_out.manifest_file.is_file()
    for name in (own.id, ".", "..", ""):
        with pytest.raises(NotFound):
            deletion.delete(session, settings, name)


def test_refused_the_command_ends_with_two(
    session: Session, settings: Settings, model: BaseModelRecord
) -> None:
    saved = save_set(session, small_spec())
    queued_job(session, settings, saved, model)
    given = ["--data-dir", str(settings.data_dir), "sets", "delete", saved.id]
    refused = CliRunner().invoke(calibrant, given)
    assert isinstance(refused.exception, Conflict)
    assert refused.exception.exit_code == 2

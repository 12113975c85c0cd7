"""Deleting on PostgreSQL: its foreign keys, and the look into the specs of other jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.database import migrate, session_for
from app.errors import Conflict
from app.jobs import deletion, service
from app.jobs.models import Job
from app.jobs.spec import JobSpec
from app.settings import Settings
from tests.integration.rows import add_job


def test_a_job_that_a_retry_needs_is_kept_until_the_retry_is_gone(
    postgres_url: str, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path / "data", database_url=postgres_url)
    migrate(settings)
    with session_for(settings) as session:
        first, again = (add_job(session, settings).id for _ in range(2))
        layers = JobSpec.model_validate(service.get_job(session, first).spec).layers_directory
        layers.mkdir(parents=True)
        for number in range(2):
            (layers / f"layer-{number:04d}.json").write_text("{}")
        retry = service.get_job(session, again)
        retry.retry_of, retry.spec = first, {**retry.spec, "layers_from": str(layers)}
        session.add(retry)
        session.commit()
        for job_id in (first, again):
            service.cancel(session, job_id)
        with pytest.raises(Conflict, match=f"Job {again} can be resumed"):
            deletion.delete(session, settings, first)
        assert service.get_job(session, again).retry_of == first
        for job_id in (again, first):
            deletion.delete(session, settings, job_id)
            assert session.get(Job, job_id) is None
        assert not any(settings.jobs_dir.iterdir())


def test_a_retry_of_a_job_deleted_meanwhile_is_refused(postgres_url: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", database_url=postgres_url)
    migrate(settings)
    with session_for(settings) as session, session_for(settings) as other:
        first, again = (add_job(session, settings) for _ in range(2))
        retry = Job(**{**again.model_dump(), "id": "retry", "retry_of": first.id})
        service.cancel(other, first.id)
        deletion.delete(other, settings, first.id)
        with pytest.raises(Conflict, match="was deleted meanwhile: nothing was started"):
            service.submit(session, settings, retry)
        assert session.get(Job, "retry") is None

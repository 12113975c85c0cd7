"""Rows of a job that a test runs without a model: the supervisor looks at none of its inputs."""

from __future__ import annotations

import secrets
from pathlib import Path

from sqlmodel import Session

from app.base_models.models import BaseModelRecord
from app.calibration.models import CalibrationSet
from app.calibration.spec import SetSpec, Slice
from app.jobs.models import Job
from app.jobs.spec import JobSpec
from app.jobs.states import JobKind
from app.settings import Settings


def add_job(session: Session, settings: Settings) -> Job:
    """A queued job, committed."""
    job_id = secrets.token_hex(6)
    spec = SetSpec(name="a set", slices=(Slice(name="all", weight=1),), token_budget=100)
    session.add(CalibrationSet(id=job_id, name="a set", spec=spec.model_dump(mode="json")))
    session.add(
        BaseModelRecord(id=job_id, name="a model", path=f"/{job_id}", fingerprint="", summary={})
    )
    session.commit()
    job_spec = JobSpec(
        job_id=job_id,
        kind=JobKind.BUILD,
        directory=settings.jobs_dir / job_id,
        sets_dir=settings.sets_dir,
        model=Path("/") / job_id,
        calibration=spec,
    )
    job = Job(
        id=job_id,
        kind=JobKind.BUILD.value,
        name="a set on a model",
        set_id=job_id,
        model_id=job_id,
        spec=job_spec.model_dump(mode="json"),
    )
    session.add(job)
    session.commit()
    return job

"""What the overview shows."""

from __future__ import annotations

from pydantic import BaseModel
from sqlmodel import Session

from app.base_models import service as base_models
from app.calibration import service as calibration
from app.calibration.starter import NAME as STARTER_NAME
from app.checkpoints.views import CheckpointRow, checkpoint_rows
from app.jobs import service as jobs
from app.jobs.models import Job
from app.jobs.spec import Evaluation, JobResult
from app.jobs.states import FINAL, HELD_BY_WORKER, JobKind, JobState
from app.jobs.views import JobRow, job_row
from app.settings import Settings

LATEST_JOBS = 5
LATEST_CHECKPOINTS = 3


class Latest(BaseModel):
    """The figures of the newest quantize job that ended well."""

    job: JobRow
    experts_reached: int | None
    experts_total: int | None
    evaluation: Evaluation | None
    bytes_before: int | None
    bytes_after: int | None


class OverviewView(BaseModel):
    """What is running, is it good enough, what can be done next.

    ``recent`` are the newest jobs that have ended. ``model_id`` is the newest model, on which the
    main job can be started at once.
    """

    active: list[JobRow]
    recent: list[JobRow]
    latest: Latest | None
    checkpoints: list[CheckpointRow]
    sets: int
    models: int
    jobs: int
    model_id: str | None
    model_name: str | None
    starter_name: str


def overview(session: Session, settings: Settings) -> OverviewView:
    """The whole first screen."""
    models = base_models.list_models(session)
    active = [
        job
        for state in (*HELD_BY_WORKER, JobState.QUEUED)
        for job in jobs.list_jobs(session, state=state, limit=LATEST_JOBS)
    ]
    newest = jobs.list_jobs(session, limit=LATEST_JOBS + len(active))
    ended = [job for job in newest if JobState(job.state) in FINAL]
    succeeded = jobs.list_jobs(session, state=JobState.SUCCEEDED, kind=JobKind.QUANTIZE, limit=1)
    return OverviewView(
        active=[job_row(job, settings) for job in active],
        recent=[job_row(job, settings) for job in ended[:LATEST_JOBS]],
        latest=_latest(succeeded[0], settings) if succeeded else None,
        checkpoints=checkpoint_rows(session, limit=LATEST_CHECKPOINTS),
        sets=calibration.count_sets(session),
        models=len(models),
        jobs=jobs.count_jobs(session),
        model_id=models[0].id if models else None,
        model_name=models[0].name if models else None,
        starter_name=STARTER_NAME,
    )


def _latest(job: Job, settings: Settings) -> Latest:
    result = JobResult.model_validate(job.result) if job.result else JobResult()
    return Latest(
        job=job_row(job, settings),
        experts_reached=result.experts_reached,
        experts_total=result.experts_total,
        evaluation=result.evaluation,
        bytes_before=result.bytes_before,
        bytes_after=result.bytes_after,
    )

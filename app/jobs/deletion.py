"""Deleting a job: its rows, its directory, its checkpoint, and what stands in the way of that.

A marker is laid beside the job's directory before the rows go, in one transaction, and taken away
after the files. Whoever is stopped before the transaction ends has lost nothing; after it the
marker says which files nobody needs any more, and ``finish_deletions`` removes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import delete as delete_rows
from sqlalchemy import update
from sqlmodel import Session, col, select

from app.artifacts import bytes_freed, remove_directory, sync
from app.base_models import service as base_models
from app.checkpoints.models import Checkpoint
from app.deletions import Deleted, Deletion
from app.errors import Conflict
from app.jobs.models import Job, JobEvent
from app.jobs.service import finished_layers, get_job, layers_of
from app.jobs.spec import JobSpec
from app.jobs.states import FINAL, JobState
from app.settings import Settings

MARKER = ".deleting-"


def deletion_of(session: Session, settings: Settings, job: Job) -> Deletion:
    """What deleting a job would mean now."""
    return Deletion(
        freed_bytes=bytes_freed(_directories(settings, job.id)),
        obstacle=_obstacle(session, settings, job),
    )


def delete(session: Session, settings: Settings, job_id: str) -> Deleted:
    """Take a job away for good, with its finished layers, its measurements and its checkpoint.

    A retry of it stays, and no longer says what it was a retry of. The built set stays. Raises
    NotFound, and Conflict for a job that has not ended or that something else still needs.
    """
    get_job(session, job_id)
    freed = bytes_freed(_directories(settings, job_id))
    try:
        _forget(session, settings, job_id)
    except BaseException:
        session.rollback()
        raise
    finally:
        session.expire_all()
    _remove_files(settings, job_id)
    return Deleted(id=job_id, freed_bytes=freed)


def finish_deletions(session: Session, settings: Settings) -> list[str]:
    """Remove the files of jobs whose deletion was stopped half-way, and give those jobs' ids."""
    finished = []
    for marker in sorted(settings.jobs_dir.glob(f"{MARKER}*")):
        job_id = marker.name.removeprefix(MARKER)
        if session.get(Job, job_id) is None:
            _remove_files(settings, job_id)
            finished.append(job_id)
    return finished


def _forget(session: Session, settings: Settings, job_id: str) -> None:
    """Delete a job's rows. The first statement writes, so that on SQLite nobody starts a retry
    between the look and the deletion; on PostgreSQL its reference to the job refuses it."""
    connection = session.connection()
    connection.execute(update(Job).where(col(Job.retry_of) == job_id).values(retry_of=None))
    session.expire_all()
    if sentence := _obstacle(session, settings, get_job(session, job_id)):
        raise Conflict(sentence)
    connection.execute(delete_rows(JobEvent).where(col(JobEvent.job_id) == job_id))
    connection.execute(delete_rows(Checkpoint).where(col(Checkpoint.job_id) == job_id))
    connection.execute(delete_rows(Job).where(col(Job.id) == job_id))
    # Empty: a disk that is full has room for a name.
    settings.jobs_dir.mkdir(parents=True, exist_ok=True)
    _marker(settings, job_id).touch()
    sync(settings.jobs_dir)
    session.commit()


def _remove_files(settings: Settings, job_id: str) -> None:
    for directory in _directories(settings, job_id):
        remove_directory(directory)
    _marker(settings, job_id).unlink(missing_ok=True)


def _marker(settings: Settings, job_id: str) -> Path:
    return settings.jobs_dir / f"{MARKER}{job_id}"


def _directories(settings: Settings, job_id: str) -> list[Path]:
    return [settings.jobs_dir / job_id, settings.checkpoints_dir / job_id]


def _obstacle(session: Session, settings: Settings, job: Job) -> str | None:
    if job.state == JobState.CANCELLING:
        return f"Job {job.id} is being cancelled: delete it when that is done."
    if JobState(job.state) not in FINAL:
        return f"Job {job.id} is {job.state}: cancel it first."
    for other in _needing_layers_of(session, job):
        if JobState(other.state) not in FINAL:
            return (
                f"Job {other.id} goes on after the finished layers of job {job.id}: "
                "delete it when that one has ended."
            )
        return (
            f"Job {other.id} can be resumed after the finished layers of job {job.id}: "
            f"delete job {other.id} first."
        )
    checkpoint = settings.checkpoints_dir / job.id
    for model in base_models.list_models(session):
        if Path(model.path).is_relative_to(checkpoint):
            return f"The model {model.name!r} is the checkpoint of job {job.id}: its jobs need it."
    return None


def _needing_layers_of(session: Session, job: Job) -> Iterator[Job]:
    """The jobs that would find no finished layers without this one's. Those that took them over
    have links of their own to the files."""
    directory = JobSpec.model_validate(job.spec).layers_directory
    if not any(directory.glob("layer-*.json")):
        return
    taken_from = col(Job.spec)["layers_from"].as_string()
    statement = select(Job).where(taken_from == str(directory)).order_by(col(Job.created_at))
    for other in session.exec(statement):
        resumes = other.state != JobState.SUCCEEDED and layers_of(other) == directory
        if JobState(other.state) not in FINAL or (resumes and finished_layers(other)):
            yield other

"""Starting a job again that ended without success, and never the same work twice at a time."""

from __future__ import annotations

from sqlalchemy import update
from sqlmodel import Session, col, select

from app.errors import Conflict
from app.jobs.models import Job
from app.jobs.service import compose_job, finished_layers, get_job, layers_of, submit
from app.jobs.spec import Resume
from app.jobs.states import FINAL, JobKind, JobState
from app.settings import Settings


def retry(session: Session, settings: Settings, job_id: str, resume: Resume = "if_possible") -> Job:
    """Start a job that ended without success again, as a job of its own.

    By default it goes on after the last layer the ended one finished; with ``resume="required"``
    it refuses to start where it cannot, with ``"never"`` it begins at the first layer.

    Raises Conflict when the job has not ended, has succeeded, is being tried again already, or,
    where ``resume`` is required, has finished no layer.
    """
    job = get_job(session, job_id)
    if JobState(job.state) not in FINAL or job.state == JobState.SUCCEEDED:
        raise Conflict(f"Job {job_id} is {job.state}: only a job that ended early is retried.")
    if resume == "required" and not finished_layers(job):
        raise Conflict(f"Job {job_id} finished no layer: retry it from the start.")
    again = compose_job(
        session,
        settings,
        kind=JobKind(job.kind),
        set_id=job.set_id,
        model_id=job.model_id,
        recipe=job.recipe,
    )
    again.retry_of = job.id
    if resume != "never":
        again.spec = {**again.spec, "resume": resume, "layers_from": str(layers_of(job))}
    _require_no_other(session, job)
    return submit(session, settings, again)


def unfinished_retry(session: Session, job: Job) -> Job | None:
    """The job that does a job's work again now: a retry of it or of what it was a retry of, or a
    retry of such a retry; None when there is none."""
    generation = [_first(session, job)]
    while generation:
        retries = select(Job.id, Job.state).where(col(Job.retry_of).in_(generation))
        found = session.exec(retries).all()
        for retry_id, state in found:
            if retry_id != job.id and JobState(state) not in FINAL:
                return get_job(session, retry_id)
        generation = [retry_id for retry_id, _ in found]
    return None


def _require_no_other(session: Session, job: Job) -> None:
    """Refuse a second retry. The first statement writes to the row that all retries come from, so
    that of two who ask at once one waits until the other's retry is there: on SQLite for the
    database, on PostgreSQL for the row."""
    first = col(Job.id) == _first(session, job)
    session.connection().execute(update(Job).where(first).values(retry_of=col(Job.retry_of)))
    if other := unfinished_retry(session, job):
        session.rollback()
        raise Conflict(
            f"Job {other.id} does the work of job {job.id} again already and is {other.state}: "
            "wait for its end, or cancel it first."
        )


def _first(session: Session, job: Job) -> str:
    """The job that a retry, and what that was a retry of, began with."""
    while job.retry_of is not None:
        job = get_job(session, job.retry_of)
    return job.id

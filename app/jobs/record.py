"""What is kept of a job's events: the row's latest progress, its history, its result."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update
from sqlmodel import Session, col

from app.checkpoints.service import record_checkpoint
from app.jobs.events import Event, Finished, Progress, StepStarted
from app.jobs.models import Job, JobEvent
from app.jobs.spec import JobResult
from app.jobs.wording import detail_of


def keep(session: Session, job_id: str, number: int, event: Event) -> None:
    """Keep one event: progress on the job's row, everything else as a row of its own."""
    values: dict[str, Any] = {"event_at": event.at}
    if isinstance(event, StepStarted):
        values |= {
            "step": event.step.value,
            "progress_done": None,
            "progress_total": None,
            "progress_detail": None,
            "progress_eta_seconds": None,
        }
    if isinstance(event, Progress):
        values |= {
            "step": event.step.value,
            "progress_done": event.done,
            "progress_total": event.total,
            "progress_unit": event.unit,
            "progress_detail": detail_of(event),
            "progress_eta_seconds": event.eta_seconds,
        }
    elif not isinstance(event, Finished):
        step = getattr(event, "step", None)
        session.add(
            JobEvent(
                job_id=job_id,
                number=number,
                at=event.at,
                type=event.type,
                step=step.value if step else None,
                data=event.model_dump(mode="json", exclude={"version", "at", "type", "step"}),
            )
        )
    session.connection().execute(update(Job).where(col(Job.id) == job_id).values(**values))
    session.commit()


def add_result(session: Session, job_id: str, document: dict[str, Any]) -> None:
    """Add a finished job's result, and the checkpoint when it exported one, to the transaction
    that ends the job. The caller commits."""
    result = JobResult.model_validate(document)
    job = session.get_one(Job, job_id)
    job.result = result.model_dump(mode="json")
    session.add(job)
    record_checkpoint(session, job, result)

"""Taking a model off the list; its directory is the person's own and stays."""

from __future__ import annotations

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from app.base_models import service
from app.base_models.models import BaseModelRecord
from app.deletions import Deleted, Deletion, kept_by_jobs
from app.errors import Conflict
from app.jobs.models import Job


def deletion_of(session: Session, record: BaseModelRecord) -> Deletion:
    """What taking a model off the list would mean now."""
    return Deletion(freed_bytes=0, obstacle=_obstacle(session, record))


def delete(session: Session, model_id: str) -> Deleted:
    """Take a model off the list. Raises NotFound, and Conflict where a kept job used the model."""
    record = service.get_model(session, model_id)
    session.delete(record)
    try:
        session.commit()
    except IntegrityError as error:  # by the references of jobs
        session.rollback()
        gone = f"A job that used the model {record.name!r} was deleted just now: try again."
        raise Conflict(_obstacle(session, record) or gone) from error
    return Deleted(id=model_id, freed_bytes=0)


def _obstacle(session: Session, record: BaseModelRecord) -> str | None:
    users = select(Job.id).where(Job.model_id == record.id).order_by(col(Job.created_at).desc())
    return kept_by_jobs(f"The model {record.name!r}", session.exec(users).all())

"""What a client sends to start a job."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from app.calibration import service as calibration
from app.calibration.composer import starter
from app.jobs import service
from app.jobs.models import Job
from app.jobs.states import JobKind
from app.negotiation import Submission
from app.recipes.schema import DEFAULT_PRESET
from app.settings import Settings
from app.validation import validated

STARTER = "starter"


class NewJob(BaseModel):
    """A job to start. ``set_id`` is a saved set, or ``starter`` for the ready composition, which
    is saved on its first use."""

    model_config = ConfigDict(extra="forbid")

    set_id: Annotated[str, Field(min_length=1, max_length=32)]
    model_id: Annotated[str, Field(min_length=1, max_length=32)]
    kind: JobKind = JobKind.QUANTIZE
    recipe: Annotated[str, Field(max_length=200)] = DEFAULT_PRESET

    @classmethod
    def of(cls, submission: Submission) -> NewJob:
        """A job from a form or a JSON document. Raises Refused when it is not one."""
        if submission.is_json:
            return validated(cls, submission.document)
        given = {name: submission.text(name) for name in cls.model_fields}
        return validated(cls, {name: value for name, value in given.items() if value})


def submitted(session: Session, settings: Settings, new: NewJob) -> Job:
    """A new job, sent to the queue; the starter set is saved when nobody has used it yet.

    Raises NotFound, Refused, BrokerGone.
    """
    is_starter = new.set_id == STARTER
    job = service.compose_job(
        session,
        settings,
        kind=new.kind,
        set_id=calibration.save_set(session, starter(settings)).id if is_starter else new.set_id,
        model_id=new.model_id,
        recipe=new.recipe if new.kind.takes_recipe else None,
    )
    service.submit(session, settings, job)
    return job

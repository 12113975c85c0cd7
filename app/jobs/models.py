"""The tables of jobs and of what was heard of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column, UniqueConstraint
from sqlmodel import Field, SQLModel

from app.database import utc_now
from app.jobs.states import JobState


class Job(SQLModel, table=True):
    """One piece of work for the GPU worker.

    ``kind`` and ``state`` are values of ``app.jobs.states``. ``spec`` is
    ``app.jobs.spec.JobSpec`` and ``result`` ``app.jobs.spec.JobResult``, as JSON.
    ``heartbeat_at`` is when its worker last said it is alive, ``event_at`` when the work itself
    last said something; the two tell a stalled job from a lost one. ``worker_host``,
    ``worker_pid`` and ``worker_started`` (seconds since that machine started) name the
    supervising process without being fooled by a reused pid; ``child_pid`` is the leader of the
    job's process group.
    """

    __tablename__ = "job"

    id: str = Field(primary_key=True, max_length=32)
    kind: str = Field(max_length=20)
    state: str = Field(default=JobState.QUEUED.value, max_length=20, index=True)
    name: str = Field(max_length=200)
    set_id: str = Field(foreign_key="calibration_set.id", max_length=32, index=True)
    model_id: str = Field(foreign_key="base_model.id", max_length=32, index=True)
    recipe: str | None = Field(default=None, max_length=200)
    retry_of: str | None = Field(default=None, foreign_key="job.id", max_length=32)
    spec: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    result: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON))
    failure: str | None = Field(default=None, max_length=4000)
    step: str | None = Field(default=None, max_length=20)
    progress_done: int | None = None
    progress_total: int | None = None
    progress_unit: str | None = Field(default=None, max_length=40)
    progress_detail: str | None = Field(default=None, max_length=80)
    progress_eta_seconds: float | None = None
    worker_host: str | None = Field(default=None, max_length=255)
    worker_pid: int | None = None
    worker_started: float | None = None
    child_pid: int | None = None
    created_at: datetime = Field(default_factory=utc_now, index=True)
    started_at: datetime | None = Field(default=None)
    finished_at: datetime | None = Field(default=None)
    heartbeat_at: datetime | None = Field(default=None)
    event_at: datetime | None = Field(default=None)

    def ran_for(self, now: datetime) -> float | None:
        """Seconds from its start to its end, or to ``now``; None before it starts."""
        if self.started_at is None:
            return None
        return ((self.finished_at or now) - self.started_at).total_seconds()


class JobEvent(SQLModel, table=True):
    """One event of a job's stream (``app.jobs.events``), numbered from 1 within its job.

    Progress events are not kept here: the job row holds the latest, ``events.jsonl`` all of them.
    """

    __tablename__ = "job_event"
    __table_args__ = (UniqueConstraint("job_id", "number"),)

    id: int | None = Field(default=None, primary_key=True)
    job_id: str = Field(foreign_key="job.id", max_length=32, index=True)
    number: int
    at: datetime
    type: str = Field(max_length=30)
    step: str | None = Field(default=None, max_length=20)
    data: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))

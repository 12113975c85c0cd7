"""What a running job is doing."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from app.jobs.models import Job
from app.jobs.states import FINAL, JobState


class Activity(StrEnum):
    """What a job is doing, as a person wants to know it: finer than its state."""

    WAITING = "waiting"
    LOADING = "loading"
    WORKING = "working"
    STALLED = "stalled"
    STOPPING = "stopping"
    ENDED = "ended"


def activity_of(job: Job, now: datetime, stall_seconds: float) -> Activity:
    """What a job is doing at ``now``; ``stall_seconds`` of silence is a stall."""
    state = JobState(job.state)
    if state in FINAL:
        return Activity.ENDED
    if state is JobState.QUEUED:
        return Activity.WAITING
    if state is JobState.CANCELLING:
        return Activity.STOPPING
    heard = job.event_at or job.started_at
    if heard is not None and (now - heard).total_seconds() > stall_seconds:
        return Activity.STALLED
    return Activity.LOADING if state is JobState.STARTING else Activity.WORKING

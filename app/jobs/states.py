"""The states of a job, which may follow which, and the steps each kind of job takes."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    FAILED = "failed"
    SUCCEEDED = "succeeded"
    LOST = "lost"


FINAL = frozenset({JobState.CANCELLED, JobState.FAILED, JobState.SUCCEEDED, JobState.LOST})
HELD_BY_WORKER = frozenset({JobState.STARTING, JobState.RUNNING, JobState.CANCELLING})

FOLLOWS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.STARTING, JobState.CANCELLED}),
    JobState.STARTING: frozenset(
        {JobState.RUNNING, JobState.CANCELLING, JobState.FAILED, JobState.LOST}
    ),
    JobState.RUNNING: frozenset(
        {JobState.SUCCEEDED, JobState.CANCELLING, JobState.FAILED, JobState.LOST}
    ),
    JobState.CANCELLING: frozenset({JobState.CANCELLED, JobState.LOST}),
    JobState.CANCELLED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.SUCCEEDED: frozenset(),
    JobState.LOST: frozenset(),
}


class Step(StrEnum):
    """One step of a job. The main job takes them in this order, all but the preflight."""

    BUILD = "build"
    PROFILE = "profile"
    QUANTIZE = "quantize"
    EVALUATE = "evaluate"
    EXPORT = "export"
    VERIFY = "verify"
    PREFLIGHT = "preflight"
    AUDIT = "audit"


class JobKind(StrEnum):
    """What a job is for. ``quantize`` is the main job; ``preflight`` says what it would do and
    need, without loading a weight; ``audit`` builds a set and holds its labels against its content.
    """

    BUILD = "build"
    AUDIT = "audit"
    PREFLIGHT = "preflight"
    PROFILE = "profile"
    QUANTIZE = "quantize"

    @property
    def takes_recipe(self) -> bool:
        """Whether a job of this kind is about a recipe."""
        return self in {JobKind.PREFLIGHT, JobKind.QUANTIZE}


STEPS: dict[JobKind, tuple[Step, ...]] = {
    JobKind.BUILD: (Step.BUILD,),
    JobKind.AUDIT: (Step.BUILD, Step.AUDIT),
    JobKind.PROFILE: (Step.BUILD, Step.PROFILE),
    JobKind.PREFLIGHT: (Step.BUILD, Step.PREFLIGHT),
    JobKind.QUANTIZE: (
        Step.BUILD,
        Step.PROFILE,
        Step.QUANTIZE,
        Step.EVALUATE,
        Step.EXPORT,
        Step.VERIFY,
    ),
}


def may_follow(state: JobState, following: JobState) -> bool:
    """Whether a job in ``state`` may pass to ``following``."""
    return following in FOLLOWS[state]

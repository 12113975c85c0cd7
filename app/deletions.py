"""What a deletion would mean, and what one did: the same for jobs, sets and models."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

MOST_NAMED = 3


class Deletion(BaseModel):
    """What a deletion would free, in bytes, and the sentence of what stands in its way."""

    freed_bytes: int
    obstacle: str | None


class Deleted(BaseModel):
    """What is gone, and the bytes that its deletion freed."""

    id: str
    freed_bytes: int


def kept_by_jobs(what: str, job_ids: Sequence[str]) -> str | None:
    """The sentence for something that kept jobs refer to, None when there are none."""
    if not job_ids:
        return None
    more = len(job_ids) - MOST_NAMED
    named = ", ".join(job_ids[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
    jobs, them = ("job", "it") if len(job_ids) == 1 else ("jobs", "them")
    return f"{what} is used by {jobs} {named}: delete {them} first."

"""The table of checkpoints."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Column
from sqlmodel import Field, SQLModel

from app.database import utc_now


class Checkpoint(SQLModel, table=True):
    """An exported checkpoint.

    ``files`` lists ``app.jobs.spec.CheckpointFile``, ``verification`` is
    ``app.jobs.spec.Verification``, both as JSON; sizes are in bytes.
    """

    __tablename__ = "checkpoint"

    id: str = Field(primary_key=True, max_length=32)
    job_id: str = Field(foreign_key="job.id", unique=True, max_length=32)
    name: str = Field(max_length=200)
    path: str = Field(max_length=4096)
    bytes_before: int = Field(sa_type=BigInteger)
    bytes_after: int = Field(sa_type=BigInteger)
    files: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))
    verification: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime = Field(default_factory=utc_now)

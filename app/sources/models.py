"""The table of sources."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel

from app.database import utc_now


class SourceRecord(SQLModel, table=True):
    """A source somebody added, or one that comes with Calibrant and was changed or fetched.

    ``document`` is ``app.sources.entry.SourceEntry`` as JSON. ``fetch_pid`` and ``fetch_started``
    (seconds since the machine started) name the process that fetches it, ``fetch_read`` is
    how many rows it has read, ``problem`` why the last fetch failed.
    """

    __tablename__ = "source"

    name: str = Field(primary_key=True, max_length=80)
    kind: str = Field(max_length=20, index=True)
    document: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    problem: str | None = Field(default=None, max_length=4000)
    fetch_pid: int | None = None
    fetch_started: float | None = None
    fetch_read: int | None = None
    created_at: datetime = Field(default_factory=utc_now)

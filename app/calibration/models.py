"""The table of calibration sets."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel

from app.database import utc_now


class CalibrationSet(SQLModel, table=True):
    """A composition somebody saved; ``spec`` is ``app.calibration.spec.SetSpec`` as JSON.

    It never changes: what is built from it for a model is a directory of its own, named by the
    hash of its manifest, and the jobs that used it name that directory.
    """

    __tablename__ = "calibration_set"

    id: str = Field(primary_key=True, max_length=32)
    name: str = Field(max_length=120, index=True)
    spec: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime = Field(default_factory=utc_now)

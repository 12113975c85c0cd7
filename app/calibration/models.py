"""The table of calibration sets."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel

from app.database import utc_now


class CalibrationSet(SQLModel, table=True):
    """A composition somebody saved; ``spec`` is ``app.calibration.spec.SetSpec`` as JSON.

    ``imported`` is what was to be known of the file it came from, an ``ImportNotes`` of
    ``app.set_files.imported_set`` as JSON; None for a set that was composed here.

    It never changes: what is built from it for a model is a directory of its own, named by the
    hash of its manifest, and the jobs that used it name that directory.
    """

    __tablename__ = "calibration_set"

    id: str = Field(primary_key=True, max_length=32)
    name: str = Field(max_length=120, index=True)
    spec: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    imported: dict[str, Any] | None = Field(
        default=None, sa_column=Column(JSON(none_as_null=True), nullable=True)
    )
    created_at: datetime = Field(default_factory=utc_now)

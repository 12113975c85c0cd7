"""The table of what a checkpoint should reach."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel

from app.database import utc_now


class QualityGates(SQLModel, table=True):
    """The installation's gates, one row: ``document`` is ``app.quality.gates.Gates`` as JSON."""

    __tablename__ = "quality_gates"

    id: int = Field(default=1, primary_key=True)
    document: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    set_at: datetime = Field(default_factory=utc_now)

"""The table of base models."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel

from app.database import utc_now


class BaseModelRecord(SQLModel, table=True):
    """A model directory that was added, with what its files say of it.

    ``summary`` is ``app.base_models.architecture.ModelSummary`` as JSON; ``path`` is absolute.
    """

    __tablename__ = "base_model"

    id: str = Field(primary_key=True, max_length=32)
    name: str = Field(max_length=200)
    path: str = Field(unique=True, max_length=4096)
    fingerprint: str = Field(max_length=64)
    summary: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    added_at: datetime = Field(default_factory=utc_now)

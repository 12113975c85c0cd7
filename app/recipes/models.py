"""The table of saved recipes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Column
from sqlmodel import Field, SQLModel

from app.database import utc_now


class SavedRecipe(SQLModel, table=True):
    """A recipe under a name of its own. It is never changed: what a job used stays what it was.

    ``document`` is ``app.recipes.schema.Recipe`` as JSON; ``notes`` what was changed when it was
    imported (``app.recipes.migration.Note``).
    """

    __tablename__ = "recipe"

    name: str = Field(primary_key=True, max_length=80)
    document: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    notes: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))
    created_at: datetime = Field(default_factory=utc_now)

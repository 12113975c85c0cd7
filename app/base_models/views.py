"""What the pages about base models show."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import BaseModel
from sqlmodel import Session

from app.base_models import service
from app.base_models.architecture import ModelSummary
from app.base_models.deletion import deletion_of
from app.base_models.models import BaseModelRecord
from app.base_models.service import DEMO_MODEL
from app.deletions import Deletion


class ModelRow(BaseModel):
    """One model in a list."""

    id: str
    name: str
    path: str
    summary: ModelSummary
    added_at: datetime


class ModelListView(BaseModel):
    """Every model, the newest first, and the form that adds one as it stands.

    ``suggestion`` is the bundled demo model's path while it has not been added.
    """

    models: list[ModelRow]
    suggestion: str | None
    path: str = ""
    error: str | None = None


class ModelView(BaseModel):
    """One model: what its files say; ``problem`` is why something that was asked was refused."""

    model: ModelRow
    is_there: bool
    deletion: Deletion
    problem: str | None = None


def model_list(session: Session, path: str = "", error: str | None = None) -> ModelListView:
    """Every model, and what was typed into the form."""
    models = [model_row(record) for record in service.list_models(session)]
    suggestion = str(DEMO_MODEL)
    is_added = any(model.path == suggestion for model in models)
    offered = (DEMO_MODEL / "config.json").is_file() and not is_added
    return ModelListView(
        models=models, suggestion=suggestion if offered else None, path=path, error=error
    )


def model_view(session: Session, model_id: str, problem: str | None = None) -> ModelView:
    """One model. Raises NotFound."""
    record = service.get_model(session, model_id)
    return ModelView(
        model=model_row(record),
        is_there=Path(record.path).is_dir(),
        deletion=deletion_of(session, record),
        problem=problem,
    )


def model_row(record: BaseModelRecord) -> ModelRow:
    """A model as lists show it."""
    return ModelRow(
        id=record.id,
        name=record.name,
        path=record.path,
        summary=service.summary_of(record),
        added_at=record.added_at,
    )

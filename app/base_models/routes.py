"""The pages about base models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from app.base_models import deletion, service
from app.base_models.views import ModelListView, ModelView, model_list, model_view
from app.deletions import Deleted
from app.dependencies import SessionDep
from app.errors import NotFound, Refused
from app.negotiation import (
    SubmissionDep,
    Table,
    answer,
    created,
    done,
    takes,
    wants_html,
)
from app.validation import validated

router = APIRouter(tags=["models"])

MODEL_COLUMNS = ("id", "name", "path", "added_at")
SUMMARY_COLUMNS = ("architecture", "layers", "moe_layers", "experts", "top_k", "parameters")


class NewModel(BaseModel):
    """A model to add: a directory on the server, with config, tokenizer and safetensors."""

    model_config = ConfigDict(extra="forbid")

    path: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")]


@router.get("/models", response_model=ModelListView)
def models_page(request: Request, session: SessionDep) -> Response:
    """Every model, and the form that adds one."""
    view = model_list(session)
    rows = (
        [getattr(model, column) for column in MODEL_COLUMNS]
        + [getattr(model.summary, column) for column in SUMMARY_COLUMNS]
        for model in view.models
    )
    table = Table("models", MODEL_COLUMNS + SUMMARY_COLUMNS, rows)
    return answer(request, view, "models/list.html", table=table)


@router.post("/models", response_model=ModelView, status_code=201, openapi_extra=takes(NewModel))
def add_model(request: Request, session: SessionDep, submission: SubmissionDep) -> Response:
    """Add a model directory. A path that cannot be used stays in the form, with a sentence."""
    path = submission.text("path")
    try:
        document = submission.document if submission.is_json else {"path": path}
        record = service.add_model(session, Path(validated(NewModel, document).path))
    except Refused as error:
        if not wants_html(request):
            raise
        sentence = error.sentence if path else "Give the path of a model directory."
        view = model_list(session, path=path, error=sentence)
        return answer(request, view, "models/list.html", status=422)
    return created(request, f"/models/{record.id}", model_view(session, record.id))


@router.get("/models/{model_id}", response_model=ModelView)
def model_page(request: Request, session: SessionDep, model_id: str) -> Response:
    """One model: architecture, layers, experts, size."""
    return answer(request, model_view(session, model_id), "models/show.html")


@router.post("/models/{model_id}/delete", response_model=Deleted)
def delete_model(request: Request, session: SessionDep, model_id: str) -> Response:
    """Take a model off the list; refused while a job that used it is kept."""
    try:
        deleted = deletion.delete(session, model_id)
    except Refused as error:
        if not wants_html(request) or isinstance(error, NotFound):
            raise
        view = model_view(session, model_id, problem=error.sentence)
        return answer(request, view, "models/show.html", status=error.status)
    return done(request, "/models", deleted)

"""The pages about calibration sets: list, compose, look at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from sqlmodel import Session

from app.calibration import deletion, service
from app.calibration.composer import (
    ComposeView,
    TotalsView,
    compose_view,
    first_model,
    first_spec,
    refused_fields,
    totals_view,
)
from app.calibration.forms import (
    SetFields,
    SliceFields,
    fields_of_form,
    fields_of_spec,
    read_spec,
)
from app.calibration.mending import Mend, mended
from app.calibration.spec import SetSpec
from app.calibration.views import (
    SetListView,
    SetRowsView,
    SetView,
    set_list,
    set_rows,
    set_rows_view,
    set_view,
)
from app.deletions import Deleted
from app.dependencies import SessionDep, SettingsDep
from app.errors import NotFound, Refused
from app.facets import label_of
from app.negotiation import (
    Submission,
    SubmissionDep,
    Table,
    answer,
    created,
    done,
    takes,
    wants_html,
)
from app.settings import Settings
from app.validation import validated

router = APIRouter(tags=["sets"])

SET_COLUMNS = ("id", "name", "token_budget", "max_length", "seed", "created_at")
FACET_COLUMNS = (
    "facet", "value", "label", "available_rows", "available_tokens", "rows", "tokens", "share",
)  # fmt: skip


@router.get("/sets", response_model=SetListView)
def sets_page(
    request: Request, session: SessionDep, page: Annotated[int, Query(ge=1, le=1_000_000)] = 1
) -> Response:
    """The saved sets, the newest first. Their CSV has every page."""
    view = set_list(session, page)
    rows = ([getattr(row, column) for column in SET_COLUMNS] for row in set_rows(session))
    return answer(request, view, "sets/list.html", table=Table("sets", SET_COLUMNS, rows))


@router.get("/sets/new", response_model=ComposeView)
def compose_page(
    request: Request,
    session: SessionDep,
    settings: SettingsDep,
    mend: Annotated[Mend, Query()],
) -> Response:
    """The composer, on the starter composition, on one source or on a copy of a saved set, mended
    where a finding of its audit led here."""
    spec = mended(first_spec(session, settings, mend), mend, settings.corpus_packs)
    fields = fields_of_spec(spec, first_model(session, mend))
    return answer(request, compose_view(session, settings, fields), "sets/new.html")


@router.post("/sets/new", response_model=ComposeView)
def change_composition(
    request: Request, session: SessionDep, settings: SettingsDep, submission: SubmissionDep
) -> Response:
    """The composer with a slice more or less: nothing is saved yet."""
    fields = fields_of_form(submission.fields)
    change, _, number = submission.text("change").partition("-")
    if change == "add":
        fields.slices.append(SliceFields(name=f"Slice {len(fields.slices) + 1}"))
    if change == "remove" and number.isdigit() and int(number) < len(fields.slices):
        del fields.slices[int(number)]
    return answer(request, compose_view(session, settings, fields), "sets/new.html")


@router.post("/sets/totals", response_model=TotalsView)
def totals_fragment(
    request: Request, session: SessionDep, settings: SettingsDep, submission: SubmissionDep
) -> Response:
    """What a composition would give, while a person works on it."""
    spec, model_id, wrong = _submitted_spec(submission)
    view = totals_view(session, settings, spec, model_id, wrong)
    return answer(request, view, "sets/_totals.html")


@router.post("/sets", response_model=SetView, status_code=201, openapi_extra=takes(SetSpec))
def save_set(
    request: Request, session: SessionDep, settings: SettingsDep, submission: SubmissionDep
) -> Response:
    """Keep a composition. A form that is not right comes back with a sentence at the field."""
    if submission.is_json:
        spec = validated(SetSpec, submission.document)
        saved = service.save_set(session, spec)
        return created(request, f"/sets/{saved.id}", set_view(session, settings, saved.id))
    fields = fields_of_form(submission.fields)
    spec_or_none, errors = read_spec(fields)
    if spec_or_none is not None:
        errors = _refusals(session, settings, spec_or_none, fields)
    if spec_or_none is None or errors:
        view = compose_view(session, settings, fields, errors)
        return answer(request, view, "sets/new.html", status=422)
    saved = service.save_set(session, spec_or_none)
    model = fields.model_id or None
    address = f"/sets/{saved.id}" + (f"?model={model}" if model else "")
    return created(request, address, set_view(session, settings, saved.id, model))


@router.get("/sets/{set_id}", response_model=SetView)
def set_page(
    request: Request,
    session: SessionDep,
    settings: SettingsDep,
    set_id: str,
    model: str | None = None,
) -> Response:
    """One set: what it asks for and what it gets, sample rows, and the form that starts a job."""
    view = set_view(session, settings, set_id, model)
    table = Table(f"set-{view.id}", FACET_COLUMNS, _facet_rows(view.totals))
    return answer(request, view, "sets/show.html", table=table)


@router.post("/sets/{set_id}/delete", response_model=Deleted)
def delete_set(
    request: Request, session: SessionDep, settings: SettingsDep, set_id: str
) -> Response:
    """Take a set and what was built from it away; refused while a job that used it is kept."""
    try:
        deleted = deletion.delete(session, settings, set_id)
    except Refused as error:
        if not wants_html(request) or isinstance(error, NotFound):
            raise
        view = set_view(session, settings, set_id, problem=error.sentence)
        return answer(request, view, "sets/show.html", status=error.status)
    return done(request, "/sets", deleted)


@router.get("/sets/{set_id}/rows", response_model=SetRowsView)
def set_rows_page(
    request: Request,
    session: SessionDep,
    settings: SettingsDep,
    set_id: str,
    model: str | None = None,
    page: Annotated[int, Query(ge=1)] = 1,
) -> Response:
    """The rows of a set as a model sees them, by turn, with what is cut."""
    view = set_rows_view(session, settings, set_id, model, page)
    return answer(request, view, "sets/rows.html")


def _submitted_spec(submission: Submission) -> tuple[SetSpec | None, str, dict[str, str]]:
    if submission.is_json:
        document = dict(submission.document) if isinstance(submission.document, dict) else {}
        model_id = str(document.pop("model_id", ""))
        return validated(SetSpec, document), model_id, {}
    fields = fields_of_form(submission.fields)
    spec, wrong = read_spec(fields)
    return spec, fields.model_id, wrong


def _refusals(
    session: Session, settings: Settings, spec: SetSpec, fields: SetFields
) -> dict[str, str]:
    """Why the sources cannot give what a form asks for; a model nobody chose refuses nothing."""
    if not fields.model_id:
        return {}
    counted = totals_view(session, settings, spec, fields.model_id)
    if counted.totals is None:
        return {"model_id": counted.problem or "This model cannot count tokens."}
    return refused_fields(counted.totals)


def _facet_rows(view: TotalsView) -> Iterator[tuple[Any, ...]]:
    if view.totals is None:
        return
    for facet, amounts in view.totals.facets.items():
        for value, amount in amounts.items():
            yield (
                facet.value,
                value,
                label_of(facet, value),
                amount.available_rows,
                amount.available_tokens,
                amount.rows,
                amount.tokens,
                round(amount.share, 6),
            )

"""What the composer shows: the form as it stands, what there is to choose from, the totals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel
from sqlmodel import Session

from app.base_models import service as base_models
from app.calibration import service
from app.calibration.forms import SetFields, read_spec
from app.calibration.mending import Mend
from app.calibration.set_sources import missing_sources
from app.calibration.spec import SetSpec
from app.calibration.starter import of_source, software_engineer
from app.calibration.totals import Totals, totals
from app.errors import CalibrantError
from app.facets import Facet, label_of, vocabulary
from app.settings import Settings
from app.sources.catalogue import SourceState, get_source, list_sources


class ModelChoice(BaseModel):
    """A model whose tokenizer can count."""

    id: str
    name: str


class ValueChoice(BaseModel):
    """A facet value to tick, with what the sources have of it (None: not counted)."""

    value: str
    label: str
    rows: int | None
    tokens: int | None


class TotalsView(BaseModel):
    """What a composition gives. Without ``totals``, ``problem`` says why they are missing, and
    ``missing`` which sources have no rows here."""

    totals: Totals | None = None
    problem: str | None = None
    needs_model: bool = False
    missing: list[str] = []
    counted_by: str | None = None


class ComposeView(BaseModel):
    """The composer: the form as it stands, what there is to choose from, the live totals."""

    fields: SetFields
    errors: dict[str, str]
    choices: dict[Facet, list[ValueChoice]]
    models: list[ModelChoice]
    sources: list[str]
    totals: TotalsView


def starter(settings: Settings) -> SetSpec:
    """The ready composition, over the sources this installation uses."""
    return software_engineer(settings.corpus_packs)


def first_spec(session: Session, settings: Settings, mend: Mend) -> SetSpec:
    """What the composer opens on. Raises NotFound for a set or a source that is not there."""
    if mend.like:
        return service.spec_of(service.get_set(session, mend.like))
    if mend.source:
        source = get_source(session, settings, mend.source)
        return of_source(source.name, source.splits.get("calibration", 0))
    return starter(settings)


def first_model(session: Session, mend: Mend) -> str:
    """The id of the model that counts when the composer opens: the one asked for, or the newest;
    empty when there is none. Raises NotFound."""
    if mend.model:
        return base_models.get_model(session, mend.model).id
    models = model_choices(session)
    return models[0].id if models else ""


def source_names(session: Session, settings: Settings, chosen: Sequence[str] = ()) -> list[str]:
    """The sources to compose from: those in use whose rows are here, and those chosen already."""
    ready = [
        source.name
        for source in list_sources(session, settings)
        if source.in_use and source.state is SourceState.READY
    ]
    return list(dict.fromkeys([*ready, *chosen]))


def compose_view(
    session: Session, settings: Settings, fields: SetFields, errors: dict[str, str] | None = None
) -> ComposeView:
    """The composer on what was typed so far."""
    spec, wrong = read_spec(fields)
    models = model_choices(session)
    counted = totals_view(session, settings, spec, fields.model_id, wrong)
    # What there is to choose from does not depend on a field that is wrong at the moment.
    available = counted.totals
    if spec is None:
        available = totals_view(session, settings, starter(settings), fields.model_id).totals
    return ComposeView(
        fields=fields,
        errors=errors or {},
        choices={facet: _choices(facet, available) for facet in Facet},
        models=models,
        sources=source_names(session, settings, fields.sources),
        totals=counted,
    )


def totals_view(
    session: Session,
    settings: Settings,
    spec: SetSpec | None,
    model_id: str,
    wrong: dict[str, str] | None = None,
) -> TotalsView:
    """What a composition gives, counted by a model's tokenizer, or why it cannot be said."""
    if spec is None:
        sentence = next(iter((wrong or {}).values()), "The composition is not complete.")
        return TotalsView(problem=f"Not counted yet: {sentence}")
    if not model_id:
        sentence = "Not counted: choose a model, its tokenizer counts the tokens."
        return TotalsView(problem=sentence, needs_model=True)
    try:
        model = base_models.get_model(session, model_id)
        index = service.index_for(settings, spec, Path(model.path))
    except CalibrantError as error:
        missing = [one.name for one in missing_sources(session, settings, spec)]
        return TotalsView(problem=error.sentence, missing=missing)
    return TotalsView(totals=totals(spec, index), counted_by=model.name)


def refused_fields(counted: Totals) -> dict[str, str]:
    """Why a composition cannot be built, each sentence at the field that can mend it."""
    sentences = iter(counted.refusals)
    errors = {}
    for number, part in enumerate(counted.slices):
        if not part.available_rows:
            errors[f"slice-{number}-name"] = next(sentences)
    for sentence in sentences:
        errors["token_budget"] = sentence
    return errors


def model_choices(session: Session) -> list[ModelChoice]:
    """Models to choose from, the newest first."""
    return [ModelChoice(id=m.id, name=m.name) for m in base_models.list_models(session)]


def _choices(facet: Facet, counted: Totals | None) -> list[ValueChoice]:
    amounts = counted.facets[facet] if counted else {}
    values = list(vocabulary(facet)) + [v for v in amounts if v not in vocabulary(facet)]
    return [
        ValueChoice(
            value=value,
            label=label_of(facet, value),
            rows=(amounts[value].available_rows if value in amounts else 0) if counted else None,
            tokens=(amounts[value].available_tokens if value in amounts else 0)
            if counted
            else None,
        )
        for value in values
    ]

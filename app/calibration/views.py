"""What the pages about calibration sets show."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel
from sqlmodel import Session

from app.base_models import service as base_models
from app.calibration import service
from app.calibration.built_set import BuiltSet
from app.calibration.deletion import deletion_of
from app.calibration.forms import SetFields, read_spec
from app.calibration.mending import Mend
from app.calibration.models import CalibrationSet
from app.calibration.rendered_rows import RowsPage, rendered_page
from app.calibration.set_sources import MissingSource, missing_sources
from app.calibration.spec import SetSpec
from app.calibration.starter import of_source, software_engineer
from app.calibration.totals import Totals, totals
from app.deletions import Deletion
from app.errors import CalibrantError
from app.facets import Facet, label_of, vocabulary
from app.paging import page_within
from app.recipes import service as recipes
from app.recipes.schema import DEFAULT_PRESET, PRESETS, Recipe
from app.set_files.comparing import builds_of
from app.set_files.imported_set import ImportNotes
from app.set_files.views import SetFiles, set_files
from app.settings import Settings
from app.sources.catalogue import SourceState, get_source, list_sources

SAMPLE_ROWS = 6
PAGE_ROWS = 10
PAGE_SETS = 25


class SetRow(BaseModel):
    """One saved set in a list."""

    id: str
    name: str
    slices: list[str]
    token_budget: int | None
    max_length: int
    seed: int
    created_at: datetime


class SetListView(BaseModel):
    """A page of the saved sets, the newest first, and how many there are."""

    sets: list[SetRow]
    total: int
    page: int
    pages: int


class ModelChoice(BaseModel):
    """A model whose tokenizer can count."""

    id: str
    name: str


class RecipeChoice(BaseModel):
    """A recipe a job can use."""

    name: str
    description: str
    is_default: bool


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


class BuiltVersion(BaseModel):
    """A set built of a composition for one tokenizer and template; ``built_at`` of its manifest."""

    id: str
    rows: int
    tokens: int
    cut_tokens: int
    set_aside: int
    tokenizer: str
    template: str
    built_at: datetime


class SetRowsView(BaseModel):
    """The rows of a set as a model sees them, a page at a time."""

    id: str
    name: str
    model_id: str | None
    models: list[ModelChoice]
    max_length: int
    rows: RowsPage | None
    problem: str | None = None


class SetView(BaseModel):
    """One set: what it asks for, what the sources give, sample rows, and what can start.
    ``samples`` is None, and ``totals`` says why, where nothing can be rendered; ``imported`` is
    what was to be known of its file, None for a set that was composed here."""

    id: str
    name: str
    created_at: datetime
    spec: SetSpec
    totals: TotalsView
    samples: RowsPage | None
    versions: list[BuiltVersion]
    models: list[ModelChoice]
    model_id: str | None
    recipes: list[RecipeChoice]
    files: SetFiles
    missing: list[MissingSource]
    imported: ImportNotes | None
    deletion: Deletion
    problem: str | None = None


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


def set_list(session: Session, page: int) -> SetListView:
    """A page of the saved sets."""
    total = service.count_sets(session)
    page, pages = page_within(total, page, PAGE_SETS)
    saved = service.list_sets(session, limit=PAGE_SETS, offset=(page - 1) * PAGE_SETS)
    return SetListView(sets=[_set_row(one) for one in saved], total=total, page=page, pages=pages)


def set_rows(session: Session) -> list[SetRow]:
    """Every saved set, as its list has it."""
    return [_set_row(saved) for saved in service.list_sets(session)]


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


def set_view(
    session: Session,
    settings: Settings,
    set_id: str,
    model_id: str | None = None,
    problem: str | None = None,
) -> SetView:
    """One set, counted by a model's tokenizer (by default the newest model's); ``problem`` is why
    something that was asked was refused. Raises NotFound."""
    saved = service.get_set(session, set_id)
    spec = service.spec_of(saved)
    models = model_choices(session)
    if model_id is None and models:
        model_id = models[0].id
    return SetView(
        id=saved.id,
        name=saved.name,
        created_at=saved.created_at,
        spec=spec,
        totals=totals_view(session, settings, spec, model_id or ""),
        samples=_rendered(session, settings, spec, model_id, 1, SAMPLE_ROWS),
        versions=built_versions(settings, spec),
        models=models,
        model_id=model_id,
        recipes=recipe_choices(session),
        files=set_files(session, spec),
        missing=missing_sources(session, settings, spec),
        imported=import_notes(saved),
        deletion=deletion_of(session, settings, saved),
        problem=problem,
    )


def import_notes(saved: CalibrationSet) -> ImportNotes | None:
    """What is to be known of the file a set came from; None for one that was composed here."""
    return ImportNotes.model_validate(saved.imported) if saved.imported else None


def model_choices(session: Session) -> list[ModelChoice]:
    """Models to choose from, the newest first."""
    return [ModelChoice(id=m.id, name=m.name) for m in base_models.list_models(session)]


def recipe_choices(session: Session) -> list[RecipeChoice]:
    """Recipes to choose from: presets, then saved ones."""
    saved = [Recipe.model_validate(each.document) for each in recipes.list_recipes(session)]
    return [
        RecipeChoice(
            name=recipe.name,
            description=recipe.description,
            is_default=recipe.name == DEFAULT_PRESET,
        )
        for recipe in (*PRESETS.values(), *saved)
    ]


def _set_row(saved: CalibrationSet) -> SetRow:
    """A set's row as it is kept, so that one that cannot be read any more hides no other."""
    usual = {name: field.default for name, field in SetSpec.model_fields.items()}
    spec = usual | saved.spec
    return SetRow(
        id=saved.id,
        name=saved.name,
        slices=[part["name"] for part in spec["slices"]],
        token_budget=spec["token_budget"],
        max_length=spec["max_length"],
        seed=spec["seed"],
        created_at=saved.created_at,
    )


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


def set_rows_view(
    session: Session, settings: Settings, set_id: str, model_id: str | None, page: int
) -> SetRowsView:
    """A page of a set's rows, rendered for a model (by default the newest). Raises NotFound."""
    saved = service.get_set(session, set_id)
    spec = service.spec_of(saved)
    models = model_choices(session)
    if model_id is None and models:
        model_id = models[0].id
    view = SetRowsView(
        id=saved.id,
        name=saved.name,
        model_id=model_id,
        models=models,
        max_length=spec.max_length,
        rows=None,
    )
    if model_id is None:
        view.problem = "A model comes first: its chat template renders the rows."
        return view
    try:
        view.rows = _page(session, settings, spec, model_id, page, PAGE_ROWS)
    except CalibrantError as error:
        view.problem = error.sentence
    return view


def built_versions(settings: Settings, spec: SetSpec) -> list[BuiltVersion]:
    """The sets that were built of a composition, the newest first."""
    return [_version(built) for built in builds_of(settings, spec)]


def _version(built: BuiltSet) -> BuiltVersion:
    written = built.manifest_file.stat().st_mtime
    return BuiltVersion(
        id=built.id,
        rows=built.rows,
        tokens=built.tokens,
        cut_tokens=built.report.cut_tokens,
        set_aside=len(built.set_aside),
        tokenizer=str(built.identity["tokenizer_sha256"]),
        template=str(built.identity["template_sha256"]),
        built_at=datetime.fromtimestamp(written, UTC),
    )


def _rendered(
    session: Session, settings: Settings, spec: SetSpec, model_id: str | None, page: int, rows: int
) -> RowsPage | None:
    if model_id is None:
        return None
    try:
        return _page(session, settings, spec, model_id, page, rows)
    except CalibrantError:  # the totals beside it say the same sentence
        return None


def _page(
    session: Session, settings: Settings, spec: SetSpec, model_id: str, page: int, rows: int
) -> RowsPage:
    directory = Path(base_models.get_model(session, model_id).path)
    index = service.index_for(settings, spec, directory)
    files = service.files_of(settings, spec)
    return rendered_page(spec, index, files, directory, page, rows)

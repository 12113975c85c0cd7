"""What the pages about calibration sets show."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel
from sqlmodel import Session

from app.base_models import service as base_models
from app.calibration import service
from app.calibration.built_set import BuiltSet
from app.calibration.composer import ModelChoice, TotalsView, model_choices, totals_view
from app.calibration.deletion import deletion_of
from app.calibration.models import CalibrationSet
from app.calibration.rendered_rows import RowsPage, rendered_page
from app.calibration.set_sources import MissingSource, missing_sources
from app.calibration.spec import SetSpec
from app.deletions import Deletion
from app.errors import CalibrantError
from app.paging import page_within
from app.recipes import service as recipes
from app.recipes.schema import DEFAULT_PRESET, PRESETS, Recipe
from app.set_files.comparing import builds_of
from app.set_files.imported_set import ImportNotes
from app.set_files.views import SetFiles, set_files
from app.settings import Settings

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


class RecipeChoice(BaseModel):
    """A recipe a job can use."""

    name: str
    description: str
    is_default: bool


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


def set_list(session: Session, page: int) -> SetListView:
    """A page of the saved sets."""
    total = service.count_sets(session)
    page, pages = page_within(total, page, PAGE_SETS)
    saved = service.list_sets(session, limit=PAGE_SETS, offset=(page - 1) * PAGE_SETS)
    return SetListView(sets=[_set_row(one) for one in saved], total=total, page=page, pages=pages)


def set_rows(session: Session) -> list[SetRow]:
    """Every saved set, as its list has it."""
    return [_set_row(saved) for saved in service.list_sets(session)]


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

"""What the pages about recipes show."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel
from sqlmodel import Session

from app.base_models import service as base_models
from app.calibration import service as calibration
from app.recipes import service
from app.recipes.files import dump_recipe
from app.recipes.lint import Lint
from app.recipes.migration import Note
from app.recipes.schema import DEFAULT_PRESET, PRESETS, Group, Recipe

JOBS_SHOWN = 20
SETS_SHOWN = 50
STATISTICS = {
    "all": "Scales are found from every token of the set, run through every expert.",
    "routed": "Scales of an expert are found from the tokens the router sends it.",
}
SEARCHES = {
    "exact": "The search gives stock llmcompressor's weights bit for bit, in less time.",
    "fast": "The search tries half of the ratios on a sample of the tokens.",
    "stock": "The search is stock llmcompressor's own.",
}


class RecipeRow(BaseModel):
    """One recipe in a list; presets have no date."""

    name: str
    description: str
    groups: list[str]
    is_preset: bool
    created_at: datetime | None = None


class RecipeListView(BaseModel):
    """The presets and every saved recipe."""

    recipes: list[RecipeRow]


class JobOfRecipe(BaseModel):
    """A job that used the recipe."""

    id: str
    name: str
    kind: str
    state: str


class SetOption(BaseModel):
    """A set that a job with the recipe can be started on, by its name and when it was saved."""

    id: str
    name: str


class ModelOption(BaseModel):
    """A model a recipe can be held against."""

    id: str
    name: str


class RecipeView(BaseModel):
    """One recipe: what it does in words, as YAML, the jobs that used it, and what a job with it can
    be started on: the newest sets, and every model."""

    recipe: Recipe
    row: RecipeRow
    in_words: list[str]
    yaml: str
    notes: list[Note]
    jobs: list[JobOfRecipe]
    sets: list[SetOption]
    models: list[ModelOption]


class EditorView(BaseModel):
    """The editor as it stands: what was typed, what it would do, what it can start from."""

    name: str
    text: str
    model_id: str | None
    models: list[ModelOption]
    presets: list[str]
    lint: Lint
    problem: str | None = None


class LintView(BaseModel):
    """What a recipe would do, while a person types."""

    lint: Lint


def recipe_list(session: Session) -> RecipeListView:
    """Saved recipes, the newest first, then the presets."""
    saved = [
        _row(Recipe.model_validate(each.document), created_at=each.created_at)
        for each in service.list_recipes(session)
    ]
    return RecipeListView(recipes=[*saved, *(_row(recipe) for recipe in PRESETS.values())])


def recipe_view(session: Session, name: str) -> RecipeView:
    """One recipe. Raises NotFound."""
    recipe = service.get_recipe(session, name)
    saved = None if name in PRESETS else service.get_saved(session, name)
    jobs = service.jobs_that_used(session, name, JOBS_SHOWN)
    return RecipeView(
        recipe=recipe,
        row=_row(recipe, created_at=saved.created_at if saved else None),
        in_words=in_words(recipe),
        yaml=dump_recipe(recipe),
        notes=[Note.model_validate(note) for note in saved.notes] if saved else [],
        jobs=[
            JobOfRecipe(id=job.id, name=job.name, kind=job.kind, state=job.state) for job in jobs
        ],
        sets=[
            SetOption(id=one.id, name=f"{one.name} · {one.created_at:%Y-%m-%d %H:%M}")
            for one in calibration.list_sets(session, limit=SETS_SHOWN)
        ],
        models=_models(session),
    )


def editor_view(
    session: Session, name: str, text: str, model_id: str | None, problem: str | None = None
) -> EditorView:
    """The editor with some text in it. Raises NotFound for an unknown model."""
    return EditorView(
        name=name,
        text=text,
        model_id=model_id,
        models=_models(session),
        presets=list(PRESETS),
        lint=service.lint(session, text, name, model_id),
        problem=problem,
    )


def new_editor(session: Session, like: str | None) -> EditorView:
    """The editor on a copy of a recipe, by default of the usual preset. Raises NotFound."""
    recipe = service.get_recipe(session, like or DEFAULT_PRESET)
    models = base_models.list_models(session)
    text = dump_recipe(recipe.model_copy(update={"name": f"{recipe.name}-copy"}), whole=True)
    return editor_view(session, f"{recipe.name}-copy", text, models[0].id if models else None)


def _models(session: Session) -> list[ModelOption]:
    return [ModelOption(id=m.id, name=m.name) for m in base_models.list_models(session)]


def in_words(recipe: Recipe) -> list[str]:
    """What a recipe does, sentence by sentence."""
    sentences = [f"{group.name}: {group_in_words(group)}" for group in recipe.groups]
    if not recipe.smooth:
        return [*sentences, "Nothing is smoothed: weights are rounded to nearest as they are."]
    duo = "activations and weights" if recipe.duo_scaling else "activations"
    sentences.append(f"AWQ tries {recipe.grid} scale ratios for each mapping, from {duo}.")
    sentences.append(STATISTICS[recipe.statistics])
    if recipe.floor:
        sentences.append(
            f"An expert with fewer than {recipe.floor:,} routed tokens is topped up to that many "
            "with the tokens nearest to being routed to it."
        )
    return [*sentences, SEARCHES[recipe.search]]


def group_in_words(group: Group) -> str:
    """A group's scheme: ``4-bit integers, one scale for 32 weights``."""
    kind = "float8" if group.type == "float" else f"{group.bits}-bit integers"
    each = f"{group.group_size} weights" if group.group_size else "each output row"
    zero = "" if group.symmetric else ", with zero points"
    return f"{kind}, one scale for {each}{zero}"


def _row(recipe: Recipe, created_at: datetime | None = None) -> RecipeRow:
    return RecipeRow(
        name=recipe.name,
        description=recipe.description,
        groups=[f"{group.name}: {group_in_words(group)}" for group in recipe.groups],
        is_preset=recipe.name in PRESETS,
        created_at=created_at,
    )

"""What can be done with recipes: find one, keep one, hold one against a model."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from sqlmodel import Session, col, select

from app.base_models import service as base_models
from app.base_models.architecture import ModelSummary, describe, linearized_name
from app.base_models.models import BaseModelRecord
from app.errors import Conflict, ModelRefused, NotFound, RecipeRefused
from app.jobs.models import Job
from app.recipes.files import load_recipe
from app.recipes.lint import Lint, Weights, lint_text, misfits
from app.recipes.migration import Imported
from app.recipes.models import SavedRecipe
from app.recipes.schema import PRESETS, Recipe
from app.validation import shown

SLUG = re.compile(r"^[a-z0-9][a-z0-9_-]{0,79}$")
LONGEST_TEXT = 100_000


def list_recipes(session: Session) -> list[SavedRecipe]:
    """Every saved recipe, the newest first."""
    return list(session.exec(select(SavedRecipe).order_by(col(SavedRecipe.created_at).desc())))


def get_recipe(session: Session, name: str) -> Recipe:
    """A preset or a saved recipe by its name. Raises NotFound."""
    if name in PRESETS:
        return PRESETS[name]
    return Recipe.model_validate(get_saved(session, name).document)


def find_recipe(session: Session, slug_or_file: str) -> Imported:
    """A preset or a file, else a saved recipe by its name, with what was changed on reading it.
    Raises RecipeRefused."""
    is_file = Path(slug_or_file).is_file()
    if not is_file and (saved := session.get(SavedRecipe, slug_or_file)) is not None:
        return Imported.model_validate({"recipe": saved.document, "notes": saved.notes})
    return load_recipe(slug_or_file)


def get_saved(session: Session, name: str) -> SavedRecipe:
    """A saved recipe by its name. Raises NotFound."""
    saved = session.get(SavedRecipe, name)
    if saved is None:
        raise NotFound(f"There is no recipe {name!r}; the presets are {', '.join(PRESETS)}.")
    return saved


def save_recipe(session: Session, found: Imported, name: str) -> SavedRecipe:
    """Keep a recipe under a name of its own.

    Raises RecipeRefused for a name that cannot stand in an address, Conflict for one that is
    taken: a recipe is never changed, because jobs name it.
    """
    if problem := _problem_of_name(name):
        raise RecipeRefused(problem)
    if name in PRESETS or session.get(SavedRecipe, name) is not None:
        raise Conflict(f"There is a recipe {name!r} already: choose another name.")
    recipe = found.recipe.model_copy(update={"name": name})
    saved = SavedRecipe(
        name=name,
        document=recipe.model_dump(mode="json"),
        notes=[note.model_dump() for note in found.notes],
    )
    session.add(saved)
    session.commit()
    return saved


def _problem_of_name(name: str) -> str | None:
    """Why a name cannot stand in an address, and one like it that can."""
    if SLUG.match(name):
        return None
    near = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-_")[:80]
    advice = f"; {near!r} would do" if SLUG.match(near) else ""
    return (
        f"{shown(name)} cannot be a recipe's name: use small letters, digits, - and _, 80 at most"
        f"{advice}."
    )


def lint(session: Session, text: str, name: str, model_id: str | None) -> Lint:
    """Hold a recipe's text against an added model, or against nothing. A model whose files cannot
    be read any more is an error of the lint: the text can still be written. Raises NotFound."""
    if len(text) > LONGEST_TEXT:
        return Lint(errors=[f"The recipe is longer than {LONGEST_TEXT:,} characters."])
    weights, problems = None, list(filter(None, [_problem_of_name(name)] if name else []))
    if model_id:
        record = base_models.get_model(session, model_id)
        try:
            weights = weights_of(record.path, record.fingerprint, record.name)
        except ModelRefused as error:
            problems.append(f"{record.name}: {error.sentence}")
    told = lint_text(text, name or "recipe", weights)
    return told.model_copy(update={"errors": [*problems, *told.errors]})


def require_fitting(recipe: Recipe, record: BaseModelRecord) -> None:
    """Raise RecipeRefused for a recipe that certainly cannot be used on a model."""
    weights = weights_of(record.path, record.fingerprint, record.name)
    if problems := misfits(recipe, weights):
        raise RecipeRefused(f"Recipe {recipe.name} does not fit {record.name}: {problems[0]}")


def jobs_that_used(session: Session, name: str, limit: int) -> list[Job]:
    """The latest jobs with a recipe."""
    statement = select(Job).where(Job.recipe == name).order_by(col(Job.created_at).desc())
    return list(session.exec(statement.limit(limit)))


@functools.lru_cache(maxsize=4)
def weights_of(path: str, _fingerprint: str, name: str) -> Weights:
    """The matrices of a model, by its headers; kept while its fingerprint stays the same.

    Embeddings and routers are left out: no recipe may quantize them. Raises ModelRefused.
    """
    summary = describe(Path(path))
    routers = _routers(summary)
    shapes, stored_bytes, fused = {}, {}, set()
    for stored, shape in summary.weight_shapes.items():
        module = linearized_name(stored)
        if stored in routers or "embed" in module:
            continue
        shapes[module], stored_bytes[module] = shape, summary.weight_bytes[stored]
        if summary.fused_experts and ".experts." in module:
            fused.add(module)
    return Weights(name, shapes, frozenset(fused), stored_bytes, summary.size_bytes)


def _routers(summary: ModelSummary) -> set[str]:
    """The stored names of routers: beside the experts of a layer, and of their number by the hidden
    size. An attention's projection may have that shape too."""
    names = summary.weight_shapes
    blocks = tuple({f"{name.partition('.experts.')[0]}." for name in names if ".experts." in name})
    return {
        name
        for name, shape in names.items()
        if shape == (summary.experts, summary.hidden)
        and name.startswith(blocks)
        and ".experts." not in name
    }

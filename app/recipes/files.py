"""Recipes from presets and files, ours and llmcompressor's."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import ValidationError

from app.errors import RecipeRefused
from app.recipes.migration import Imported, import_recipe, is_llmcompressor
from app.recipes.schema import PRESETS, Recipe
from app.validation import placed_problem
from app.yaml_lines import decoded, load_with_lines, sentence


def load_recipe(slug_or_file: str) -> Imported:
    """A preset by its slug, or a recipe from a YAML file, with notes of what was changed.

    Raises RecipeRefused when neither exists or the file is not a recipe.
    """
    if slug_or_file in PRESETS:
        return Imported(recipe=PRESETS[slug_or_file])
    path = Path(slug_or_file)
    if not path.is_file():
        raise RecipeRefused(
            f"There is no recipe {slug_or_file!r}: give a file, the name of a kept one, or one of "
            f"{', '.join(PRESETS)}."
        )
    return parse_recipe(decoded(path.read_bytes(), str(path)), path.stem, where=str(path))


def parse_recipe(text: str, name: str, where: str) -> Imported:
    """A recipe from YAML text. ``name`` is the recipe's where the text gives none, ``where`` what
    a refusal calls the text. Raises RecipeRefused."""
    try:
        document, lines = load_with_lines(text)
    except yaml.YAMLError as error:
        raise RecipeRefused(sentence(error, where, text)) from error
    if is_llmcompressor(document):
        return import_recipe(document, lines, name)
    if not isinstance(document, dict):
        raise RecipeRefused(f"{where} is no recipe: it has no groups and no modifiers.")
    try:
        return Imported(recipe=Recipe.model_validate({"name": name, **document}))
    except ValidationError as error:
        raise RecipeRefused(f"{where}: {placed_problem(error, Recipe)}") from error


def dump_recipe(recipe: Recipe, whole: bool = False) -> str:
    """The recipe as our own YAML, which ``load_recipe`` reads back as it was; ``whole`` with the
    keys that have their usual value too."""
    document = recipe.model_dump(mode="json", exclude_defaults=not whole)
    return yaml.safe_dump(document, sort_keys=False, width=100)

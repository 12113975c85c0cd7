"""``--recipe``: a preset, a file, or a recipe that is kept in the data directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.console import complain, installed
from app.recipes.files import load_recipe
from app.recipes.schema import PRESETS, Recipe
from app.recipes.service import find_recipe

RecipeOption = Annotated[
    str, typer.Option("--recipe", help="A preset, a kept recipe's name, or a YAML file.")
]


def recipe_named(slug_or_file: str) -> Recipe:
    """A recipe; what was changed on reading it is said on stderr. Raises RecipeRefused."""
    if slug_or_file in PRESETS or Path(slug_or_file).is_file():  # needs no installation
        found = load_recipe(slug_or_file)
    else:
        with installed() as (session, _):
            found = find_recipe(session, slug_or_file)
    for note in found.notes:
        complain(f"{slug_or_file} line {note.line}: {note.message}")
    return found.recipe

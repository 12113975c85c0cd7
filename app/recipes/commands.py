"""``calibrant recipes``: presets and recipe files."""

from __future__ import annotations

from typing import Annotated

import typer

from app.console import Json, say, tell, wide
from app.recipes.files import dump_recipe, load_recipe
from app.recipes.schema import PRESETS

app = typer.Typer(help="Recipes: what is quantized, and how.", no_args_is_help=True)

SlugOrFile = Annotated[str, typer.Argument(metavar="RECIPE", help="A preset's slug or a file.")]


@app.command("list")
def list_(json: Json = False) -> None:
    """The presets."""
    if json:
        say([recipe.model_dump(mode="json") for recipe in PRESETS.values()])
        return
    tell(*(f"{slug:<26}{recipe.description}" for slug, recipe in PRESETS.items()))


@app.command()
def show(recipe: SlugOrFile, json: Json = False) -> None:
    """A recipe as YAML."""
    found = load_recipe(recipe)
    if json:
        say(found.model_dump(mode="json"))
        return
    tell(dump_recipe(found.recipe).rstrip())


@app.command("import")
def import_(recipe: SlugOrFile, json: Json = False) -> None:
    """Read a recipe of llmcompressor, and say everything that is changed to make it ours."""
    found = load_recipe(recipe)
    if json:
        say(found.model_dump(mode="json"))
        return
    tell(dump_recipe(found.recipe).rstrip())
    tell(*(wide(f"line {note.line}", note.message) for note in found.notes))

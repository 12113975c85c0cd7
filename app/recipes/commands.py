"""``calibrant recipes``: presets, kept recipes and recipe files."""

from __future__ import annotations

from typing import Annotated

import typer

from app.console import Json, installed, say, tell, wide
from app.recipes import service
from app.recipes.files import dump_recipe, load_recipe
from app.recipes.schema import PRESETS, Recipe

app = typer.Typer(help="Recipes: what is quantized, and how.", no_args_is_help=True)

SlugOrFile = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A preset, a recipe that is kept, or a file.")
]


@app.command("list")
def list_(json: Json = False) -> None:
    """The presets and every recipe that is kept."""
    with installed() as (session, _):
        kept = [Recipe.model_validate(one.document) for one in service.list_recipes(session)]
    recipes = [*PRESETS.values(), *kept]
    if json:
        say([recipe.model_dump(mode="json") for recipe in recipes])
        return
    tell(*(f"{recipe.name:<26}  {recipe.description}".rstrip() for recipe in recipes))


@app.command()
def show(recipe: SlugOrFile, json: Json = False) -> None:
    """A recipe as YAML."""
    with installed() as (session, _):
        found = service.find_recipe(session, recipe)
    if json:
        say(found.model_dump(mode="json"))
        return
    tell(dump_recipe(found.recipe).rstrip())


@app.command("import")
def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A recipe's YAML, or a preset.")],
    name: Annotated[str, typer.Option(help="Keep it under this name.")] = "",
    json: Json = False,
) -> None:
    """Read a recipe of llmcompressor, say everything that is changed to make it ours, and with
    --name keep it."""
    found = load_recipe(file)
    if name:
        with installed() as (session, _):
            saved = service.save_recipe(session, found, name)
            found = found.model_copy(update={"recipe": Recipe.model_validate(saved.document)})
    if json:
        say(found.model_dump(mode="json"))
        return
    tell(dump_recipe(found.recipe).rstrip())
    tell(*(wide(f"line {note.line}", note.message) for note in found.notes))

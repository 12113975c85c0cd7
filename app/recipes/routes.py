"""The pages about recipes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from app.dependencies import SessionDep
from app.errors import Refused
from app.negotiation import (
    Submission,
    SubmissionDep,
    Table,
    answer,
    created,
    takes,
    wants_html,
)
from app.recipes import service
from app.recipes.files import dump_recipe, parse_recipe
from app.recipes.views import (
    EditorView,
    LintView,
    RecipeListView,
    RecipeView,
    editor_view,
    new_editor,
    recipe_list,
    recipe_view,
)
from app.validation import validated

router = APIRouter(tags=["recipes"])

RECIPE_COLUMNS = ("name", "description", "groups", "is_preset", "created_at")


class NewRecipe(BaseModel):
    """A recipe to keep: YAML, Calibrant's or llmcompressor's, and its name. ``model_id`` is the
    model it is held against while it is written."""

    model_config = ConfigDict(extra="forbid")

    name: str = ""
    text: Annotated[str, Field(min_length=1, max_length=service.LONGEST_TEXT)]
    model_id: Annotated[str | None, Field(max_length=32)] = None

    @classmethod
    def of(cls, submission: Submission) -> NewRecipe:
        """A recipe from a form or a JSON document. Raises Refused when it is not one."""
        if submission.is_json:
            return validated(cls, submission.document)
        given = {name: submission.text(name) for name in cls.model_fields}
        return validated(cls, {name: value for name, value in given.items() if value})


@router.get("/recipes", response_model=RecipeListView)
def recipes_page(request: Request, session: SessionDep) -> Response:
    """The presets and every saved recipe."""
    view = recipe_list(session)
    rows = ([getattr(row, column) for column in RECIPE_COLUMNS] for row in view.recipes)
    return answer(request, view, "recipes/list.html", table=Table("recipes", RECIPE_COLUMNS, rows))


@router.get("/recipes/new", response_model=EditorView)
def editor_page(request: Request, session: SessionDep, like: str | None = None) -> Response:
    """The editor, on a copy of a recipe."""
    return answer(request, new_editor(session, like), "recipes/new.html")


@router.post("/recipes/edit", response_model=EditorView, openapi_extra=takes(NewRecipe))
def edit_recipe(request: Request, session: SessionDep, submission: SubmissionDep) -> Response:
    """The editor on a text that a page of Calibrant proposes. Nothing is kept."""
    new = NewRecipe.of(submission)
    view = editor_view(session, new.name, new.text, new.model_id)
    return answer(request, view, "recipes/new.html")


@router.post("/recipes/lint", response_model=LintView, openapi_extra=takes(NewRecipe))
def lint_fragment(request: Request, session: SessionDep, submission: SubmissionDep) -> Response:
    """What a recipe would do to a model, while a person types. Nothing is kept."""
    new = NewRecipe.of(submission)
    found = service.lint(session, new.text, new.name, new.model_id)
    return answer(request, LintView(lint=found), "recipes/_lint.html")


@router.post("/recipes", response_model=RecipeView, status_code=201, openapi_extra=takes(NewRecipe))
def save_recipe(request: Request, session: SessionDep, submission: SubmissionDep) -> Response:
    """Keep a recipe. A form that is not right comes back with a sentence."""
    try:
        new = NewRecipe.of(submission)
        found = parse_recipe(new.text, new.name or "recipe", where="The recipe")
        saved = service.save_recipe(session, found, new.name or found.recipe.name)
    except Refused as error:
        if not wants_html(request):
            raise
        name, text = submission.text("name"), submission.text("text")
        model_id = submission.text("model_id") or None
        view = editor_view(session, name, text, model_id, problem=error.sentence)
        return answer(request, view, "recipes/new.html", status=422)
    return created(request, f"/recipes/{saved.name}", recipe_view(session, saved.name))


@router.get("/recipes/{name}", response_model=RecipeView)
def recipe_page(request: Request, session: SessionDep, name: str) -> Response:
    """One recipe: what it does, its YAML, the jobs that used it."""
    return answer(request, recipe_view(session, name), "recipes/show.html")


@router.get("/recipes/{name}/recipe.yaml", response_class=PlainTextResponse)
def recipe_file(session: SessionDep, name: str) -> Response:
    """The recipe as a file for ``calibrant quantize --recipe``."""
    text = dump_recipe(service.get_recipe(session, name))
    disposition = {"content-disposition": f'attachment; filename="{name}.yaml"'}
    return PlainTextResponse(text, media_type="application/yaml", headers=disposition)

"""``calibrant recipes``: what was kept in a browser is found on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.errors import CalibrantError, Conflict, RecipeRefused
from app.recipes.schema import PRESETS
from app.settings import Settings

OLD = Path(__file__).with_name("old_experts.yaml")


@pytest.fixture
def run(settings: Settings) -> Any:
    def command(*arguments: str) -> Any:
        given = ["--data-dir", str(settings.data_dir), "recipes", *arguments, "--json"]
        done = CliRunner().invoke(app, given, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return command


def test_a_recipe_is_read_and_kept_when_it_is_given_a_name(run: Any) -> None:
    read = run("import", str(OLD))
    assert [one["name"] for one in run("list")] == list(PRESETS)
    kept = run("import", str(OLD), "--name", "mine")
    assert (kept["recipe"]["name"], kept["notes"]) == ("mine", read["notes"])
    assert [one["name"] for one in run("list")] == [*PRESETS, "mine"]
    assert run("show", "mine") == kept


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (["import", str(OLD), "--name", "Not One"], RecipeRefused, "'not-one' would do"),
        (["import", str(OLD), "--name", next(iter(PRESETS))], Conflict, "choose another name"),
        (["show", "nobody-kept-it"], RecipeRefused, "the name of a kept one"),
    ],
)
def test_what_cannot_be_is_refused(
    settings: Settings, arguments: list[str], error: type[CalibrantError], says: str
) -> None:
    given = ["--data-dir", str(settings.data_dir), "recipes", *arguments]
    with pytest.raises(error, match=says):
        CliRunner().invoke(app, given, catch_exceptions=False)

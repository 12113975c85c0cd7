"""coverage, select, quantize, evaluate and compare as a script calls them, one after the other, on
two architectures besides the demo model's (``tests/integration/test_command_line.py``)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from app.comparison import commands as comparison
from tests.engine import tiny_models
from workers import commands as worker

RECIPES = ("experts-w4a16-g32", "experts-w4a16-g32-attn8")
COMMANDS = typer.Typer()
COMMANDS.registered_commands += worker.app.registered_commands
COMMANDS.registered_commands += comparison.app.registered_commands
ARCHITECTURES = {"mixtral": 2, "qwen3_moe": 1}  # layers with experts: Qwen3-MoE's first is dense


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("architectures")


def document(*arguments: object) -> Any:
    """What a command prints with ``--json``."""
    done = CliRunner().invoke(COMMANDS, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def pool(place: Path) -> Path:
    return tiny_models.write_jsonl(place / "pool.jsonl", rows=40, length=60, seed=2)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(name: str, saved: Callable[[str], Path]) -> Path:
    return saved(name)


@pytest.fixture(scope="module")
def chosen(place: Path, name: str, model: Path, pool: Path) -> Any:
    """A quarter of the pool, chosen for the worst-fed experts: the document, and the file."""
    file = place / f"{name}.jsonl"
    words = ("select", "--model", model, "--pool", pool, "--budget", 600, "--out", file)
    return document(*words), file


@pytest.fixture(scope="module")
def evaluations(
    place: Path, name: str, model: Path, chosen: Any,
    held_out_file: Path,
) -> dict[Path, Any]:  # fmt: skip
    """What two recipes lose on held-out rows, by the directory that keeps it."""
    found = {}
    for recipe in RECIPES:
        checkpoint, kept = place / f"{name}-{recipe}", place / f"{name}-{recipe}-evaluation"
        words = ("--model", model, "--set", chosen[1], "--recipe", recipe, "--out", checkpoint)
        document("quantize", *words, "--threads", 1)
        words = ("--base", model, "--checkpoint", checkpoint, "--set", held_out_file)
        found[kept] = document("evaluate", *words, "--out", kept)
    return found


def test_coverage_counts_every_token_in_every_layer(name: str, model: Path, pool: Path) -> None:
    found = document("coverage", "--model", model, "--set", pool, "--by", "domain")
    assert len(found["layers"]) == ARCHITECTURES[name]
    for at, layer in enumerate(found["layers"]):
        assert sum(layer["experts"]) == found["tokens"] * found["top_k"]
        parts = [part["layers"][at]["experts"] for part in found["slices"].values()]
        assert [sum(each) for each in zip(*parts, strict=True)] == layer["experts"]


def test_select_feeds_the_worst_fed_more_than_chance(chosen: Any) -> None:
    found, file = chosen
    assert len(file.read_text(encoding="utf-8").splitlines()) == found["rows"]
    assert found["tokens"] <= 600
    assert found["worst5pct_tokens"]["selected"] > found["worst5pct_tokens"]["random"]
    assert found["empty_experts"]["selected"] == 0


def test_evaluate_measures_each_slice_and_layer(name: str, evaluations: dict[Path, Any]) -> None:
    for found in evaluations.values():
        assert 0 < found["kl_low"] <= found["kl_mean"] <= found["kl_high"]
        assert {(one["facet"], one["value"]) for one in found["slices"]} >= {
            ("domain", "code"), ("domain", "law"),
        }  # fmt: skip
        assert len(found["router_same"]) == ARCHITECTURES[name]


def test_compare_says_what_the_second_recipe_changes(evaluations: dict[Path, Any]) -> None:
    found = document("compare", *evaluations)
    one, other = evaluations.values()
    (pair,) = found["pairs"]
    assert pair["problem"] is None
    assert pair["shared"] == one["rows"] == 8
    assert pair["overall"]["difference"] == pytest.approx(other["kl_mean"] - one["kl_mean"])
    assert pair["overall"]["low"] <= pair["overall"]["difference"] <= pair["overall"]["high"]
    assert pair["sentences"]

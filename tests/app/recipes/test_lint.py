"""What a recipe would do, told from names and shapes."""

from __future__ import annotations

import dataclasses

import pytest

from app.recipes.files import dump_recipe
from app.recipes.lint import Weights, lint_text, misfits
from app.recipes.packed_size import packed_bytes
from app.recipes.schema import PRESETS, Group, Recipe

EXPERTS = {
    f"model.layers.{layer}.mlp.experts.{expert}.{projection}": (
        (32, 64) if projection != "down_proj" else (64, 32)
    )
    for layer in range(2)
    for expert in range(4)
    for projection in ("gate_proj", "up_proj", "down_proj")
}
ATTENTION = {f"model.layers.{n}.self_attn.{p}_proj": (64, 64) for n in range(2) for p in "qkvo"}
SHAPES = {**EXPERTS, **ATTENTION, "lm_head": (320, 64)}
NUMBERS = sum(rows * columns for rows, columns in SHAPES.values())
MODEL = Weights(
    "Tiny", SHAPES, frozenset(), bytes_each=dict.fromkeys(SHAPES, 2.0), size_bytes=2 * NUMBERS
)


def yaml_of(*groups: dict[str, object], **changes: object) -> str:
    recipe = Recipe.model_validate({"name": "r", "groups": groups, **changes})
    return dump_recipe(recipe)


def test_a_preset_is_counted_and_measured() -> None:
    told = lint_text(dump_recipe(PRESETS["experts-w4a16-g32"]), "r", MODEL)
    assert told.errors == []
    assert (told.quantized, told.weights) == (24, len(SHAPES))
    assert [(each.group, each.matches) for each in told.patterns] == [("experts", 24), (None, 1)]
    numbers = sum(rows * columns for rows, columns in EXPERTS.values())
    group = PRESETS["experts-w4a16-g32"].groups[0]
    packed = sum(packed_bytes(*shape, group, 2) for shape in EXPERTS.values())
    assert told.bytes_after == told.bytes_before - 2 * numbers + packed
    assert told.left_alone["model.layers.*.self_attn.q_proj"] == 2


@pytest.mark.parametrize(("stored", "scale"), [(4.0, 4), (1.0002, 2)])
def test_sizes_are_of_the_types_in_the_source(stored: float, scale: int) -> None:
    each = {**dict.fromkeys(SHAPES, 2.0), **dict.fromkeys(EXPERTS, stored)}
    model = dataclasses.replace(MODEL, bytes_each=each)
    told = lint_text(dump_recipe(PRESETS["experts-w4a16-g32"]), "r", model)
    numbers = sum(rows * columns for rows, columns in EXPERTS.values())
    group = PRESETS["experts-w4a16-g32"].groups[0]
    packed = sum(packed_bytes(*shape, group, scale) for shape in EXPERTS.values())
    assert told.bytes_after == round(told.bytes_before - stored * numbers) + packed


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ([{"name": "a", "targets": [".*nothing$"]}], "matches nothing in Tiny"),
        ([{"name": "a", "targets": [".*_proj$"], "group_size": 48}], "columns of model.layers.0"),
        (
            [{"name": "a", "targets": [".*_proj$"]}, {"name": "b", "targets": [".*q_proj$"]}],
            "is matched by the groups 'a' and 'b'",
        ),
    ],
)
def test_what_is_wrong_is_said(groups: list[dict[str, object]], said: str) -> None:
    told = lint_text(yaml_of(*groups), "r", MODEL)
    assert any(said in sentence for sentence in told.errors), told.errors


def test_what_lies_outside_the_layers_is_refused() -> None:
    told = lint_text(yaml_of({"name": "a", "targets": [".*"]}, ignore=["^nothing$"]), "r", MODEL)
    assert any("lm_head is outside the decoder layers" in each for each in told.errors)


def test_a_group_that_matches_nothing_does_not_fit() -> None:
    dense = Weights("Dense", {**ATTENTION, "lm_head": (320, 64)}, frozenset(), 2.0, 2)
    (said,) = misfits(PRESETS["experts-w4a16-g32"], dense)
    assert "matches nothing in Dense, whose modules are named like model.layers.1" in said
    both = Group(name="g", targets=(r".*w9$", r".*_proj$"), group_size=16)
    assert misfits(Recipe(name="r", groups=(both,)), dense) == []


def test_fused_experts_are_refused() -> None:
    fused = dataclasses.replace(MODEL, fused=frozenset(EXPERTS))
    told = lint_text(dump_recipe(PRESETS["experts-w4a16-g32"]), "r", fused)
    assert "Leave the experts out" in told.errors[0]


def test_text_that_is_no_recipe_and_no_model() -> None:
    assert "The recipe, line 2, column 1" in lint_text("a: [", "r", None).errors[0]
    unclosed = "{name: r, groups: [{name: g, targets: ['.*(unclosed$']}]}"
    assert "is not a regular expression" in lint_text(unclosed, "r", None).errors[0]
    assert "groups" in lint_text("name: r", "r", None).errors[0]
    told = lint_text(dump_recipe(PRESETS["linears-w4a16-g128"]), "r", None)
    assert (told.errors, told.weights, told.patterns) == ([], 0, [])


def test_advice_on_statistics_and_smoothing() -> None:
    group = {"name": "a", "targets": [r".*\.experts\..*"]}
    assert "set a floor" in lint_text(yaml_of(group, statistics="routed"), "r", MODEL).warnings[0]
    assert "to nearest" in lint_text(yaml_of(group, smooth=False), "r", MODEL).warnings[0]
    assert lint_text(yaml_of(group, statistics="routed", floor=9), "r", MODEL).warnings == []


def test_float_groups_take_a_byte_a_weight() -> None:
    group = Group(name="a", targets=("x",), bits=8, type="float", group_size=32)
    assert packed_bytes(64, 64, group, 2) == 64 * 64 + 2 * 64 * 2

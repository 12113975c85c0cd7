"""What is written for others to match is what is quantized, and nothing beside it."""

from __future__ import annotations

import re

import pytest

from app.recipes.narrowing import narrowed
from app.recipes.schema import Group, Recipe

EXPERTS = [f"m.layers.{n}.mlp.experts.{e}.{p}_proj" for n in (0, 1) for e in (0, 1) for p in "gd"]
ATTENTION = [f"m.layers.{n}.self_attn.{p}_proj" for n in range(2) for p in "qo"]
LINEARS = [*ATTENTION, *EXPERTS, "lm_head"]
CONTAINERS = [
    "", "m", "m.embed", "m.layers", "m.layers.0", "m.layers.0.self_attn", "m.layers.0.mlp",
    "m.layers.0.mlp.gate", "m.layers.1.mlp.experts", "m.layers.1.mlp.experts.0",
    "m.layers.1.self_attn", "m.layers.1.norm",
]  # fmt: skip
MODULES = [*CONTAINERS, *LINEARS]


def groups_of(*targets: str, ignore: tuple[str, ...] = ("^lm_head$",)) -> tuple[Recipe, dict]:
    groups = tuple(
        Group(name=f"g{at}", targets=(target,), bits=4 + at) for at, target in enumerate(targets)
    )
    recipe = Recipe(name="r", groups=groups, ignore=ignore)
    chosen = {
        name: group for name in LINEARS for group in groups
        if re.match(group.targets[0], name) and not any(re.match(i, name) for i in ignore)
    }  # fmt: skip
    return recipe, chosen


def test_patterns_that_match_no_more_stay() -> None:
    recipe, chosen = groups_of(r".*_proj$")
    assert narrowed(recipe, chosen, MODULES) == {"g0": (r".*_proj$",)}


@pytest.mark.parametrize(
    ("targets", "ignore"),
    [
        ((".*",), ("^lm_head$",)),
        ((".*",), ("^lm_head$", r".*\.0\.self_attn.*")),
        ((r".*self_attn.*", r".*experts.*"), ()),
        ((r".*layers\.0\..*", r".*layers\.1\..*"), ()),
        ((r".*\.experts\.0.*", r".*\.experts\.1.*"), ()),
        ((r".*\.0\.mlp\.experts\.0.*|.*\.1\.mlp\.experts\.1.*",), ()),
    ],
)
def test_wide_patterns_become_those_of_what_is_quantized(
    targets: tuple[str, ...], ignore: tuple[str, ...]
) -> None:
    recipe, chosen = groups_of(*targets, ignore=ignore)
    found = narrowed(recipe, chosen, MODULES)
    for group in recipe.groups:
        matched = {
            name for name in MODULES for pattern in found[group.name]
            if re.match(pattern, name) and not any(re.match(each, name) for each in ignore)
        }  # fmt: skip
        assert matched == {name for name, wanted in chosen.items() if wanted == group}


def test_of_one_kind_there_is_one_pattern() -> None:
    recipe, chosen = groups_of(r".*")
    assert narrowed(recipe, chosen, MODULES)["g0"] == (
        r"^m\.layers\.\d+\.self_attn\.q_proj$",
        r"^m\.layers\.\d+\.self_attn\.o_proj$",
        r"^m\.layers\.\d+\.mlp\.experts\.\d+\.g_proj$",
        r"^m\.layers\.\d+\.mlp\.experts\.\d+\.d_proj$",
    )
    one, chosen = groups_of(r".*layers\.1\.self.*")
    assert narrowed(one, chosen, MODULES)["g0"] == (
        r"^m\.layers\.(1)\.self_attn\.q_proj$",
        r"^m\.layers\.(1)\.self_attn\.o_proj$",
    )

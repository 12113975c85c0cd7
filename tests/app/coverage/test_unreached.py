"""Experts no token reached are named, and what the recipe did with them is said."""

from __future__ import annotations

import pytest

from app.coverage.unreached import by_layer, treatment
from app.recipes.schema import ATTENTION, PRESETS, Group, Recipe

MISSED = [(3, 5), (3, 17), (7, 200)]
EXPERTS = PRESETS["experts-w4a16-g32"]


def test_they_are_named_by_layer() -> None:
    assert by_layer(MISSED) == "layer 3: 5, 17; layer 7: 200"
    assert by_layer(MISSED, most=1) == "layer 3: 5; and 2 more"
    assert by_layer([(0, at) for at in range(1200)], most=2) == "layer 0: 0, 1; and 1,198 more"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "calibrated on every token of the set"),
        ({"statistics": "routed"}, "rounded to nearest as it is"),
        ({"statistics": "routed", "floor": 64}, "the 64 tokens nearest to being routed to it"),
        ({"smooth": False}, "rounded to nearest, as all weights are"),
    ],
)
def test_what_the_recipe_does_with_them(changes: dict[str, object], said: str) -> None:
    assert said in str(treatment(EXPERTS.model_copy(update=changes), MISSED))


def test_a_recipe_that_leaves_experts_alone_does_nothing_with_them() -> None:
    attention = Recipe(name="a", groups=(Group(name="a", targets=(ATTENTION,)),))
    assert treatment(attention, MISSED) is None

"""Experts that no token of a set reached, in words: which they are, and what a recipe does."""

from __future__ import annotations

import re
from collections.abc import Sequence

from app.formatting import integer
from app.recipes.schema import Recipe

NAMED = 60


def by_layer(experts: Sequence[tuple[int, int]], most: int = NAMED) -> str:
    """Experts as (layer, expert), in order: ``layer 3: 5, 17; layer 7: 200``. The first ``most``
    of them, and how many more there are."""
    layers: dict[int, list[str]] = {}
    for layer, expert in experts[:most]:
        layers.setdefault(layer, []).append(str(expert))
    named = "; ".join(f"layer {layer}: {', '.join(found)}" for layer, found in layers.items())
    left = len(experts) - most
    return f"{named}; and {integer(left)} more" if left > 0 else named


def treatment(recipe: Recipe, experts: Sequence[tuple[int, int]]) -> str | None:
    """What becomes of experts no token is routed to, after ``Each of them is``; None where the
    recipe leaves them alone."""
    names = [f"model.layers.{layer}.mlp.experts.{expert}.down_proj" for layer, expert in experts]
    targets = [target for group in recipe.groups for target in group.targets]
    if not any(re.match(target, name) for target in targets for name in names):
        return None
    if not recipe.smooth:
        return "rounded to nearest, as all weights are"
    if recipe.statistics == "all":
        return "calibrated on every token of the set, as all experts are"
    if recipe.floor:
        tokens = integer(recipe.floor)
        return f"calibrated on the {tokens} tokens nearest to being routed to it"
    return "rounded to nearest as it is"

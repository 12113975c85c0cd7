"""Which modules a recipe quantizes and how, and whether it can.

The checks need names and shapes only, so they run on the meta device as well as on loaded weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationScheme,
    QuantizationStrategy,
    QuantizationType,
)
from torch import nn

from app.errors import RecipeRefused
from app.recipes.schema import Group, Recipe

SIZES = (1024, 512, 256, 128, 64, 32, 16)


def weight_args(group: Group) -> QuantizationArgs:
    """The weight quantization of a recipe group, as the preset W4A16 of compressed-tensors
    spells it."""
    strategy = QuantizationStrategy.GROUP if group.group_size else QuantizationStrategy.CHANNEL
    return QuantizationArgs(
        num_bits=group.bits,
        type=QuantizationType.FLOAT if group.type == "float" else QuantizationType.INT,
        symmetric=group.symmetric,
        strategy=strategy,
        group_size=group.group_size,
        dynamic=False,
    )


def scheme_of(group: Group, targets: list[str] | None = None) -> QuantizationScheme:
    """The scheme of a recipe group; ``targets`` replaces the recipe's own patterns."""
    patterns = targets or [f"re:{pattern}" for pattern in group.targets]
    return QuantizationScheme(targets=patterns, weights=weight_args(group))


def quantized_modules(model: nn.Module, recipe: Recipe) -> dict[str, Group]:
    """The Linear modules the recipe quantizes, in the model's order, and the group of each.

    The model must be linearized. Raises RecipeRefused for a pattern that matches nothing, a
    module that two groups want, and a group size that does not divide a weight's columns.
    """
    linears = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    chosen: dict[str, Group] = {}
    for group in recipe.groups:
        for pattern in group.targets:
            matched = [name for name in linears if re.match(pattern, name)]
            if not matched:
                raise RecipeRefused(
                    f"Recipe {recipe.name}: the pattern {pattern} of group {group.name!r} "
                    "matches no Linear module of this model"
                    f"{_example(linears)}."
                )
            for name in matched:
                if not _ignored(name, recipe):
                    _choose(chosen, name, group)
    if not chosen:
        raise RecipeRefused(f"Recipe {recipe.name} ignores every module it matches.")
    for name, group in chosen.items():
        _check_group_size(name, linears[name], group)
    return {name: chosen[name] for name in linears if name in chosen}


def _ignored(name: str, recipe: Recipe) -> bool:
    return any(re.match(pattern, name) for pattern in recipe.ignore)


def _choose(chosen: dict[str, Group], name: str, group: Group) -> None:
    other = chosen.setdefault(name, group)
    if other != group:
        raise RecipeRefused(
            f"{name} is matched by two groups of the recipe, {other.name!r} and {group.name!r}: "
            "narrow one of their patterns."
        )


def _check_group_size(name: str, linear: nn.Linear, group: Group) -> None:
    columns = linear.in_features
    if not group.group_size or columns % group.group_size == 0:
        return
    fitting = [str(size) for size in SIZES if columns % size == 0]
    advice = f"sizes that fit: {', '.join(fitting)}" if fitting else "no usual group size fits it"
    raise RecipeRefused(
        f"Group size {group.group_size} does not divide the {columns} input columns of {name}; "
        f"{advice}."
    )


def _example(linears: Mapping[str, nn.Module]) -> str:
    name = next((name for name in reversed(list(linears)) if name != "lm_head"), None)
    return f", whose modules are named like {name}" if name else ""

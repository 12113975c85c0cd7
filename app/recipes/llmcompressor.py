"""Our recipe as YAML that stock llmcompressor runs.

Stock resolves the mappings of a recipe by patterns over the whole model and groups the matches by
their nearest common parents. One pattern for all layers fails where some are dense, so every
pattern names its layers; within a layer the experts are one pattern.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import yaml

from app.recipes.narrowing import narrowed
from app.recipes.schema import Group, Recipe

LAYER = re.compile(r"^(.*?\.)(\d+)(\..*)$")


class MappingNames(Protocol):
    """A smoothing by names: see ``workers.engine.plan.mappings.TreeMapping``."""

    @property
    def smooth(self) -> str:
        """The smoothed module."""

    @property
    def balance(self) -> Sequence[str]:
        """The modules that are balanced, in order."""


def to_yaml(
    recipe: Recipe,
    mappings: Iterable[MappingNames],
    chosen: Mapping[str, Group],
    modules: Sequence[str],
) -> str:
    """The recipe for ``oneshot(recipe=...)`` of llmcompressor 0.14.

    ``chosen`` are the modules it quantizes in the model the mappings are of, ``modules`` the names
    of all of that model's. What stock has not is said in a comment: routed statistics are
    ``moe_calibrate_all_experts=False`` there.
    """
    targets = narrowed(recipe, chosen, modules)
    modifiers: dict[str, Any] = {}
    compact = _compact(mappings)
    if recipe.smooth and compact:
        modifiers["AWQModifier"] = {
            "mappings": compact,
            "duo_scaling": recipe.duo_scaling,
            "n_grid": max(recipe.grid, 3 if recipe.duo_scaling else 2),
        }
    modifiers["QuantizationModifier"] = {
        "config_groups": {
            group.name: _group(group, targets[group.name]) for group in recipe.groups
        },
        "ignore": [f"re:{pattern}" for pattern in _used(recipe.ignore, modules)],
    }
    document = {"default_stage": {"default_modifiers": modifiers}}
    return _head(recipe) + yaml.safe_dump(document, sort_keys=False, width=100)


def _head(recipe: Recipe) -> str:
    every = recipe.statistics == "all"
    lines = [
        f"# {recipe.name}, for llmcompressor 0.14.",
        f"# Run it with oneshot(..., moe_calibrate_all_experts={every}).",
    ]
    if recipe.floor:
        lines.append("# The floor of tokens an expert is topped up to is Calibrant's alone.")
    if recipe.search == "fast":
        lines.append("# The fast search is Calibrant's alone: stock tries every token.")
    return "\n".join(lines) + "\n"


def _used(patterns: Iterable[str], modules: Sequence[str]) -> list[str]:
    return [each for each in patterns if any(re.match(each, name) for name in modules)]


def _group(group: Group, targets: Iterable[str]) -> dict[str, Any]:
    return {
        "targets": [f"re:{pattern}" for pattern in targets],
        "weights": {
            "num_bits": group.bits,
            "type": group.type,
            "symmetric": group.symmetric,
            "strategy": "group" if group.group_size else "channel",
            **({"group_size": group.group_size} if group.group_size else {}),
            "dynamic": False,
        },
    }


def _compact(mappings: Iterable[MappingNames]) -> list[dict[str, Any]]:
    """Mappings alike but for their layers and experts, as one each."""
    layers: dict[tuple[str, tuple[str, ...]], dict[str, None]] = {}
    for mapping in mappings:
        shape = (_shape(mapping.smooth), _merged(mapping.balance))
        found = LAYER.match(mapping.smooth)
        layers.setdefault(shape, {})[found[2] if found else ""] = None
    return [
        {
            "smooth_layer": f"re:{_pattern(smooth, numbers)}",
            "balance_layers": [f"re:{_pattern(each, numbers)}" for each in balance],
        }
        for (smooth, balance), numbers in layers.items()
    ]


def _shape(name: str) -> str:
    """A name as a pattern, with ``#`` for its layer and any expert."""
    found = LAYER.match(name)
    before, after = (found[1], found[3]) if found else ("", name)
    escaped = re.escape(after)
    escaped = re.sub(r"(\\\.experts\\\.)\d+(\\\.)", r"\1\\d+\2", escaped)
    return f"^{re.escape(before)}#{escaped}$" if found else f"^{escaped}$"


def _merged(names: Sequence[str]) -> tuple[str, ...]:
    """The shapes of names in order, the experts' projections as one pattern."""
    merged: dict[str, list[str]] = {}
    for name in names:
        shape = _shape(name)
        stem, _, leaf = shape.rpartition(r"\.")
        key = stem if r"\d+" in stem else shape
        leaves = merged.setdefault(key, [])
        if leaf not in leaves:
            leaves.append(leaf)
    return tuple(
        key if key.endswith("$") else _joined(key, leaves) for key, leaves in merged.items()
    )


def _joined(stem: str, leaves: list[str]) -> str:
    return rf"{stem}\.({'|'.join(sorted(leaf.removesuffix('$') for leaf in leaves))})$"


def _pattern(shape: str, layers: Iterable[str]) -> str:
    numbers = list(layers)
    return shape.replace("#", numbers[0] if len(numbers) == 1 else f"({'|'.join(numbers)})")

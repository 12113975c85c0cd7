"""What a recipe would do to a model, told while a person types.

The model is known by the names and shapes in its safetensors headers, so no torch is needed and
an answer takes about a tenth of a second for 48,000 weights. Before a job the module tree
itself is asked (``calibrant preflight``): only that knows what reads which norm.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from app.errors import RecipeRefused
from app.recipes.files import dump_recipe, parse_recipe
from app.recipes.migration import Note
from app.recipes.packed_size import packed_bytes, scale_bytes_of
from app.recipes.schema import Group, Recipe

GROUP_SIZES = (16, 32, 64, 128, 256, 512, 1024)
NUMBER = re.compile(r"\.\d+(?=\.|$)")
INSIDE = re.compile(r"\.\d+\.")
SHOWN_KINDS = 8


@dataclass(frozen=True)
class Weights:
    """The matrices of a model a recipe may speak of: rows and columns by module name, as they are
    named after linearization. ``fused`` names those that have no tensor of their own;
    ``bytes_each`` is what a number of each takes in the source, ``size_bytes`` all of it."""

    name: str
    shapes: Mapping[str, tuple[int, int]]
    fused: frozenset[str]
    bytes_each: Mapping[str, float]
    size_bytes: int


class PatternMatches(BaseModel):
    """How many weights a pattern matches; ``group`` None for one to ignore."""

    pattern: str
    group: str | None
    matches: int


class Lint(BaseModel):
    """``errors`` keep a recipe from being used, each in a sentence that says what would be right.

    ``notes`` are what an import changed, ``yaml`` is the recipe as it would be kept (None when it
    cannot be read). The rest is about one model, and empty where none was chosen.
    """

    errors: list[str] = []
    warnings: list[str] = []
    notes: list[Note] = []
    yaml: str | None = None
    patterns: list[PatternMatches] = []
    quantized: int = 0
    weights: int = 0
    left_alone: dict[str, int] = {}
    bytes_before: int = 0
    bytes_after: int = 0


def lint_text(text: str, name: str, weights: Weights | None) -> Lint:
    """Read YAML, ours or llmcompressor's, and hold it against a model's weights."""
    try:
        found = parse_recipe(text, name, where="The recipe")
    except RecipeRefused as error:
        return Lint(errors=[error.sentence])
    told = Lint(notes=found.notes, yaml=dump_recipe(found.recipe))
    if weights is not None:
        _hold_against(found.recipe, weights, told)
    return told


def misfits(recipe: Recipe, weights: Weights) -> list[str]:
    """What of a recipe certainly cannot be done to a model: a group that matches nothing, a group
    size that does not divide, a weight without a tensor of its own, one outside the decoder layers.
    A single pattern that matches nothing is left to the module tree, which knows every name."""
    for group in recipe.groups:
        if not any(_matching(pattern, weights.shapes) for pattern in group.targets):
            return [_matches_nothing(group.targets[0], group, weights)]
    chosen = {
        name: group
        for group in recipe.groups
        for pattern in group.targets
        for name in _matching(pattern, weights.shapes)
        if not any(re.match(each, name) for each in recipe.ignore)
    }
    return _misfits(chosen, weights)


def _hold_against(recipe: Recipe, weights: Weights, told: Lint) -> None:
    chosen: dict[str, Group] = {}
    for group in recipe.groups:
        for pattern in group.targets:
            matched = _matching(pattern, weights.shapes)
            told.patterns.append(
                PatternMatches(pattern=pattern, group=group.name, matches=len(matched))
            )
            if not matched:
                told.errors.append(_matches_nothing(pattern, group, weights))
            for name in matched:
                other = chosen.setdefault(name, group)
                if other is not group and other != group:  # pydantic compares by fields, slowly
                    told.errors.append(
                        f"{name} is matched by the groups {other.name!r} and {group.name!r}: "
                        "narrow one of their patterns."
                    )
                    return
    for pattern in recipe.ignore:
        matched = _matching(pattern, weights.shapes)
        told.patterns.append(PatternMatches(pattern=pattern, group=None, matches=len(matched)))
        for name in matched:
            chosen.pop(name, None)
    told.errors.extend(_misfits(chosen, weights))
    told.warnings.extend(_advice(recipe, chosen))
    _measure(chosen, weights, told)


def _matches_nothing(pattern: str, group: Group, weights: Weights) -> str:
    example = next((name for name in reversed(list(weights.shapes)) if INSIDE.search(name)), "")
    return (
        f"{pattern} of group {group.name!r} matches nothing in {weights.name}, whose modules are "
        f"named like {example}."
    )


def _matching(pattern: str, names: Iterable[str]) -> list[str]:
    match = re.compile(pattern).match
    return [name for name in names if match(name)]


def _misfits(chosen: Mapping[str, Group], weights: Weights) -> list[str]:
    """What cannot be quantized as the recipe wants it, one sentence a kind."""
    sentences: dict[tuple[object, ...], str] = {}
    for name, group in chosen.items():
        columns = weights.shapes[name][1]
        if not INSIDE.search(name):
            sentences.setdefault(
                ("outside", name),
                f"{name} is outside the decoder layers and cannot be quantized: add it to ignore.",
            )
        elif name in weights.fused:
            sentences.setdefault(
                ("fused",),
                f"{name} has no tensor of its own: {weights.name} keeps the experts of a layer in "
                "one, for which serving engines know no packed form. Leave the experts out.",
            )
        elif group.group_size and columns % group.group_size:
            fitting = [str(size) for size in GROUP_SIZES if columns % size == 0]
            advice = f"use {', '.join(fitting)}" if fitting else "leave it out"
            sentences.setdefault(
                (group.name, columns),
                f"Group size {group.group_size} of {group.name!r} does not divide the {columns:,} "
                f"columns of {name}: {advice}.",
            )
    return list(sentences.values())


def _advice(recipe: Recipe, chosen: Mapping[str, Group]) -> list[str]:
    advice = []
    if not chosen:
        advice.append("Nothing is quantized.")
    experts = [name for name in chosen if ".experts." in name]
    if recipe.statistics == "routed" and not recipe.floor and experts:
        advice.append(
            "An expert that no token of the set reaches is rounded to nearest: set a floor to top "
            "it up with the tokens nearest to it."
        )
    if not recipe.smooth:
        advice.append("Nothing is smoothed: weights are rounded to nearest as they are.")
    return advice


def _measure(chosen: Mapping[str, Group], weights: Weights, told: Lint) -> None:
    told.quantized, told.weights = len(chosen), len(weights.shapes)
    left = Counter(NUMBER.sub(".*", name) for name in weights.shapes if name not in chosen)
    told.left_alone = dict(left.most_common(SHOWN_KINDS))
    replaced, packed = 0.0, 0
    for name, group in chosen.items():
        (rows, columns), each = weights.shapes[name], weights.bytes_each[name]
        replaced += rows * columns * each
        packed += packed_bytes(rows, columns, group, scale_bytes_of(each))
    told.bytes_before = weights.size_bytes
    told.bytes_after = round(weights.size_bytes - replaced) + packed

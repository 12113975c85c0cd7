"""Patterns that match what a recipe quantizes and nothing beside it.

Ours are held against Linear modules only. llmcompressor, transformers and serving engines hold them
against every module: ``.*`` would quantize the embedding there, ``.*self_attn.*`` the cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from app.recipes.schema import Group, Recipe

NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


def narrowed(
    recipe: Recipe, chosen: Mapping[str, Group], every: Iterable[str]
) -> dict[str, tuple[str, ...]]:
    """The patterns of each group of ``recipe``, by the group's name: its own where they match no
    other module than those ``chosen`` for it, else one for each kind of those.

    ``every`` are the names of all modules of the model, containers and embeddings too.
    """
    passed = [n for n in every if not any(re.match(each, n) for each in recipe.ignore)]
    found = {}
    for group in recipe.groups:
        beside = [name for name in passed if chosen.get(name) != group]
        if any(re.match(pattern, name) for pattern in group.targets for name in beside):
            names = [name for name, wanted in chosen.items() if wanted == group]
            found[group.name] = tuple(patterns_of(names, set(passed).difference(names)))
        else:
            found[group.name] = group.targets
    return found


def kind_of(name: str) -> str:
    """A pattern for a module's name and all that differ from it in their numbers only."""
    escaped = re.sub(r"(?<=\.)\d+(?=\\.|$)", r"\\d+", re.escape(name))
    return f"^{escaped}$"


def patterns_of(names: Iterable[str], others: Iterable[str]) -> Iterator[str]:
    """Patterns that match ``names`` and none of ``others``, as few as it takes: of each kind its
    numbers are open, or listed, the layer's first; or every name stands alone."""
    alike, beside = _by_kind(names), _by_kind(others)
    for kind, members in alike.items():
        numbers = [NUMBER.findall(name) for name in members]
        listed = [f"({'|'.join(dict.fromkeys(each))})" for each in zip(*numbers, strict=True)]
        for count in range(len(listed) + 1):
            pattern = kind
            for numbers_there in listed[:count]:
                pattern = pattern.replace(r"\d+", numbers_there, 1)
            if not any(re.match(pattern, name) for name in beside.get(kind, ())):
                yield pattern
                break
        else:
            yield from (f"^{re.escape(name)}$" for name in members)


def _by_kind(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(kind_of(name), []).append(name)
    return found

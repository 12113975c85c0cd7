"""A copy of a composition with what an audit's finding asks for: the composer opens on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

from app.calibration.spec import Duplicates, SetSpec, Slice
from app.facets import Facet, label_of

# A language is fed when it has some rows of its own, not a sentence.
TOKENS_A_VALUE = 2_000
NAMED_IN_A_NAME = 3


def mended(
    spec: SetSpec,
    facet: Facet | None,
    values: Sequence[str],
    duplicates: Duplicates | None,
    more_sources: Sequence[str] = (),
) -> SetSpec:
    """The composition with a slice of ``values`` of a facet, shared equally, from its own sources
    and ``more_sources``, and with another choice about duplicates. Nothing else changes."""
    changes: dict[str, object] = {}
    if duplicates is not None:
        changes["duplicates"] = duplicates
    if facet is not None and values:
        changes["sources"] = tuple(dict.fromkeys((*spec.sources, *more_sources)))
        pinned = [_with_sources(part, spec) for part in spec.slices]
        changes["slices"] = (*pinned, _slice_of(spec, facet, values))
    return spec.model_copy(update=changes)


def _with_sources(part: Slice, spec: SetSpec) -> Slice:
    """A slice that took of all the set's sources still takes of those alone."""
    return part if part.sources else part.model_copy(update={"sources": spec.sources})


def _slice_of(spec: SetSpec, facet: Facet, values: Sequence[str]) -> Slice:
    named = [label_of(facet, value) for value in values[:NAMED_IN_A_NAME]]
    more = f" and {len(values) - NAMED_IN_A_NAME} more" if len(values) > NAMED_IN_A_NAME else ""
    taken = {part.name for part in spec.slices}
    wanted = (", ".join(named) + more)[:70]
    name = next(each for each in _numbered(wanted) if each not in taken)
    weights = [part.weight for part in spec.slices if part.weight is not None]
    return Slice(
        name=name,
        weight=sum(weights) / len(weights) if weights else None,
        tokens=None if weights else TOKENS_A_VALUE * len(values),
        facets={facet: tuple(values)},
        balance=facet,
    )


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name} ({number})" for number in count(2))

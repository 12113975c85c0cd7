"""A copy of a composition with what an audit's finding asks for: the composer opens on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

from pydantic import BaseModel, Field

from app.calibration.spec import Duplicates, SetSpec, Slice
from app.facets import Facet, label_of

# A language is fed when it has some rows of its own, not a sentence.
TOKENS_A_VALUE = 2_000
NAMED_IN_A_NAME = 3


class Mend(BaseModel):
    """What a link to the composer asks for: a copy of the saved set ``like``, or a set of one
    ``source``; counted by a ``model``; a slice of each ``value`` of a ``facet``, another choice
    about ``duplicates``."""

    like: str | None = None
    source: str | None = None
    model: str | None = None
    facet: Facet | None = None
    value: list[str] = Field(default=[], max_length=500)
    duplicates: Duplicates | None = None


def mended(spec: SetSpec, mend: Mend, more_sources: Sequence[str] = ()) -> SetSpec:
    """The composition with what is asked for, and nothing else changed.

    The new slice shares its tokens equally over the values and may take rows of ``more_sources``
    too; slices that were there take of the sources they took of.
    """
    changes: dict[str, object] = {}
    if mend.duplicates is not None:
        changes["duplicates"] = mend.duplicates
    if mend.facet is not None and mend.value:
        changes["sources"] = tuple(dict.fromkeys((*spec.sources, *more_sources)))
        added = _slice_of(spec, mend.facet, mend.value)
        changes["slices"] = (*(_with_sources(part, spec) for part in spec.slices), added)
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

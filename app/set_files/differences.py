"""What is different between two sets: what they ask for, and what they hold.

Pure functions over compositions and over the rows of built sets. A difference is always the
second minus the first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel

from app.calibration.spec import SetSpec, Slice
from app.facets import Facet, label_of

Presence = Literal["both", "only A", "only B"]
# Of a row that both have, what can still differ: where it stands, what it became.
COMPARED = ("slice", "tokens", "named_value", "text_sha256")


class Change(BaseModel):
    """A field with another value: its place (``seed``, ``slices.Math.rows``) and both values, as
    texts; None where one has no such field."""

    place: str
    a: str | None
    b: str | None


class SideBySide(BaseModel):
    """Rows and tokens of the same thing in both sets."""

    a_rows: int = 0
    b_rows: int = 0
    a_tokens: int = 0
    b_tokens: int = 0

    @property
    def rows(self) -> int:
        """How many rows more the second has."""
        return self.b_rows - self.a_rows

    @property
    def tokens(self) -> int:
        """How many tokens more the second has."""
        return self.b_tokens - self.a_tokens


class SliceDifference(SideBySide):
    """A slice by its name."""

    name: str
    presence: Presence


class FacetDifference(SideBySide):
    """A value of a facet: rows labelled so, and the tokens of their content (fed). ``a_named`` and
    ``b_named`` are tokens of rows that only a prompt calls so."""

    facet: Facet
    value: str
    label: str
    a_named: int = 0
    b_named: int = 0


class RowDifference(BaseModel):
    """A row that only one set has, or that differs in both. ``slice`` and ``tokens`` are those of
    the set that has it (of B where both have); ``changed`` says what differs."""

    row_id: str
    presence: Presence
    source: str
    slice: str
    tokens: int
    changed: list[str] = []


class RowCounts(BaseModel):
    """How many rows are where; ``changed`` are among ``both``."""

    both: int
    only_a: int
    only_b: int
    changed: int


class HeldDifference(BaseModel):
    """What two built sets hold."""

    total: SideBySide
    slices: list[SliceDifference]
    facets: list[FacetDifference]
    counts: RowCounts
    rows: list[RowDifference]


class BuiltRow(BaseModel):
    """A row of a built set, as far as two sets are compared by it."""

    row_id: str
    source: str
    slice: str
    facets: dict[Facet, str]
    tokens: int
    fed_tokens: int
    named_tokens: int
    named_facet: Facet | None = None
    named_value: str | None = None
    text_sha256: str = ""


def compare_specs(a: SetSpec, b: SetSpec) -> list[Change]:
    """The fields in which two compositions differ. Slices are the same when they are called so."""
    first, second = _fields(a), _fields(b)
    places = dict.fromkeys([*first, *second])
    changes = [Change(place=p, a=first.get(p), b=second.get(p)) for p in places]
    changed = [change for change in changes if change.a != change.b]
    orders = [[part.name for part in spec.slices] for spec in (a, b)]
    if sorted(orders[0]) == sorted(orders[1]) and orders[0] != orders[1]:
        changed.append(Change(place="order of slices", a=_shown(orders[0]), b=_shown(orders[1])))
    return changed


def compare_rows(a: Iterable[BuiltRow], b: Iterable[BuiltRow]) -> HeldDifference:
    """What two built sets hold: totals, by slice, by facet value, and row by row."""
    sides = (list(a), list(b))
    slices: dict[str, SliceDifference] = {}
    facets: dict[tuple[Facet, str], FacetDifference] = {}
    total = SideBySide()
    for side, rows in zip(("a", "b"), sides, strict=True):
        for row in rows:
            _add(total, side, row.tokens)
            presence: Presence = "only A" if side == "a" else "only B"
            part = slices.setdefault(row.slice, SliceDifference(name=row.slice, presence=presence))
            part.presence = part.presence if part.presence == presence else "both"
            _add(part, side, row.tokens)
            _add_facets(facets, side, row)
    order = list(Facet)
    differences = _row_differences(*sides)
    both = len({row.row_id for row in sides[0]} & {row.row_id for row in sides[1]})
    return HeldDifference(
        total=total,
        slices=list(slices.values()),
        facets=sorted(facets.values(), key=lambda one: (order.index(one.facet), one.value)),
        counts=RowCounts(
            both=both,
            only_a=sum(one.presence == "only A" for one in differences),
            only_b=sum(one.presence == "only B" for one in differences),
            changed=sum(one.presence == "both" for one in differences),
        ),
        rows=differences,
    )


def _fields(spec: SetSpec) -> dict[str, str]:
    """Every field of a composition by its place, the value as a text."""
    fields: dict[str, str] = {}
    document = spec.model_dump(mode="json", exclude={"slices"})
    _flatten(document, "", fields)
    for part in spec.slices:
        _flatten(_slice(part), f"slices.{part.name}", fields)
    return fields


def _slice(part: Slice) -> dict[str, Any]:
    document = part.model_dump(mode="json", exclude={"name"}, exclude_none=True)
    if part.row_ids:
        digest = hashlib.sha256("\0".join(part.row_ids).encode()).hexdigest()
        document["row_ids"] = f"{len(part.row_ids):,} rows, {digest[:12]}"
    return {key: value for key, value in document.items() if value not in ({}, [])}


def _flatten(value: Any, place: str, fields: dict[str, str]) -> None:
    if isinstance(value, Mapping) and value:
        for key, one in value.items():
            _flatten(one, f"{place}.{key}" if place else str(key), fields)
    elif value not in (None, {}, []):
        fields[place] = _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _add(amount: SideBySide, side: str, tokens: int) -> None:
    setattr(amount, f"{side}_rows", getattr(amount, f"{side}_rows") + 1)
    setattr(amount, f"{side}_tokens", getattr(amount, f"{side}_tokens") + tokens)


def _add_facets(facets: dict[tuple[Facet, str], FacetDifference], side: str, row: BuiltRow) -> None:
    def amount_of(facet: Facet, value: str) -> FacetDifference:
        made = FacetDifference(facet=facet, value=value, label=label_of(facet, value))
        return facets.setdefault((facet, value), made)

    for facet, value in row.facets.items():
        _add(amount_of(facet, value), side, row.fed_tokens)
    if row.named_facet is not None and row.named_value is not None:
        amount = amount_of(row.named_facet, row.named_value)
        name = f"{side}_named"
        setattr(amount, name, getattr(amount, name) + row.named_tokens)


def _row_differences(a: Sequence[BuiltRow], b: Sequence[BuiltRow]) -> list[RowDifference]:
    first, second = ({row.row_id: row for row in rows} for rows in (a, b))
    found = []
    for row_id in dict.fromkeys([*first, *second]):
        old, new = first.get(row_id), second.get(row_id)
        one = new or old
        assert one is not None
        changed: list[str] = []
        presence: Presence = "only A" if new is None else "only B"
        if old is not None and new is not None:
            presence = "both"
            changed = [key for key in COMPARED if getattr(old, key) != getattr(new, key)]
            if not changed:
                continue
        found.append(
            RowDifference(
                row_id=row_id,
                presence=presence,
                source=one.source,
                slice=one.slice,
                tokens=one.tokens,
                changed=["text" if key == "text_sha256" else key for key in changed],
            )
        )
    return found

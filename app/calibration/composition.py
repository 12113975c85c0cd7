"""What a set is made of: rows chosen by stratified, seeded sampling in tokens.

Each slice gets its share of the budget by weight. Inside a slice that balances a facet the
values are filled like water: the value with the fewest tokens takes the next of its rows, in
seeded random order, until no next row fits. Rows are whole, so parts are equal up to one row. A
share smaller than a value's next row is met with a shorter row of it: every value is fed first.

A row is chosen at most once. Where slices want the same rows, the one whose rows are scarcest
for its budget (fewest available tokens for every token asked) chooses first, and equally scarce
ones in the order of the composition: so a narrow slice is not emptied by a wide one.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from app.calibration.pool import Candidate, Pool
from app.calibration.quotas import by_weight, equally
from app.calibration.spec import SetSpec, Slice
from app.errors import CompositionRefused
from app.facets import Facet, label_of

# In the manifest of every set: another way of choosing is another set.
ALGORITHM = 1


@dataclass(frozen=True)
class Quota:
    """What one value of a balanced facet was to get in a slice and got, in tokens.

    ``available`` counts the rows of the pool that match, whoever took them in the end.
    """

    slice: str
    facet: Facet
    value: str
    asked: int
    got: int
    available: int
    rows: int
    exhausted: bool

    @property
    def short(self) -> bool:
        """Whether the value fell short for want of rows, or got none at all."""
        return (self.exhausted and self.got < self.asked) or self.rows == 0

    @property
    def sentence(self) -> str:
        """The shortfall in words."""
        label = label_of(self.facet, self.value)
        if not self.available:
            return f"Slice {self.slice!r} has no rows in {label}."
        if not self.exhausted:
            why = "its shortest row is longer than what is left of the slice's share"
        elif self.available >= self.asked:
            why = f"other slices took the rest of the {self.available:,} there are"
        else:
            why = f"there are {self.available:,}"
        got, asked = f"{self.got:,}", f"{self.asked:,}"
        return f"Slice {self.slice!r} got {got} of the {asked} tokens asked in {label}: {why}."


@dataclass(frozen=True)
class SliceResult:
    """What one slice was to get and got, in tokens and rows."""

    name: str
    budget: int
    tokens: int
    rows: int
    available_tokens: int
    available_rows: int


@dataclass(frozen=True)
class Composition:
    """The chosen rows in seeded random order: their positions in ``pool``, which is in that
    order too, and the number of the slice of each. ``available_rows`` and ``available_tokens``
    are those of the rows that match any slice."""

    pool: Pool
    rows: NDArray[np.intp]
    slice_of_row: NDArray[np.intp]
    available_rows: int
    available_tokens: int
    slices: tuple[SliceResult, ...]
    quotas: tuple[Quota, ...]
    warnings: tuple[str, ...]

    @property
    def row_ids(self) -> list[str]:
        """Ids of the chosen rows."""
        return [str(row_id) for row_id in self.pool.row_ids[self.rows]]

    @property
    def slice_names(self) -> list[str]:
        """The slice of each chosen row."""
        return [self.slices[number].name for number in self.slice_of_row]

    @property
    def tokens(self) -> int:
        """Tokens of the chosen rows; never more than the budget."""
        return int(self.pool.tokens[self.rows].sum())

    @property
    def shortfalls(self) -> tuple[Quota, ...]:
        """The values that could not be filled."""
        return tuple(quota for quota in self.quotas if quota.short)


@dataclass(frozen=True)
class _Wanted:
    """A slice with its share of the budget, the rows it may take in seeded order, and the order
    in which it chooses."""

    number: int
    part: Slice
    budget: int
    rows: NDArray[np.intp]
    available: int

    @property
    def turn(self) -> tuple[Fraction, int]:
        """Scarcest first: available tokens for every token of the budget."""
        return Fraction(self.available, max(self.budget, 1)), self.number


def compose(spec: SetSpec, rows: Pool | Sequence[Candidate]) -> Composition:
    """Choose the rows of a set.

    Raises CompositionRefused when a slice matches no row, naming it and what it asks for, and
    when the budget is more than the rows that match any slice hold. A slice or value that has
    too little of its own is no refusal: it is in ``shortfalls`` and ``warnings``.
    """
    pool = rows if isinstance(rows, Pool) else Pool.of(rows)
    composition = preview(spec, pool)
    for sentence in refusals(spec, composition):
        raise CompositionRefused(sentence)
    return composition


def preview(spec: SetSpec, pool: Pool) -> Composition:
    """Choose as :func:`compose` does, but refuse nothing: for totals while a person works."""
    pool = pool.in_random_order(spec.seed)
    wanted = _wanted_by_slice(spec, pool)
    free = np.ones(len(pool), dtype=np.bool_)
    chosen: dict[int, NDArray[np.intp]] = {}
    quotas: dict[int, list[Quota]] = {}
    for want in sorted(wanted, key=lambda want: want.turn):
        filled = _fill_slice(want, pool, free)
        chosen[want.number], quotas[want.number] = filled
        free[chosen[want.number]] = False
    slices = tuple(_result(want, pool, chosen[want.number]) for want in wanted)
    matching = _matching_any(wanted, pool)
    return Composition(
        pool,
        *_mixed([chosen[want.number] for want in wanted]),
        available_rows=int(matching.sum()),
        available_tokens=int(pool.tokens[matching].sum()),
        slices=slices,
        quotas=tuple(quota for want in wanted for quota in quotas[want.number]),
        warnings=tuple(_warnings(wanted, pool, slices, quotas)),
    )


def refusals(spec: SetSpec, composition: Composition) -> Iterator[str]:
    """Why a composition cannot be built, one sentence each."""
    for part, result in zip(spec.slices, composition.slices, strict=True):
        if not result.available_rows:
            yield (
                f"Slice {part.name!r} matches no row of the sources: it asks for "
                f"{_asks_for(part)}. Widen it or take it out."
            )
    available = f"{composition.available_tokens:,} tokens ({composition.available_rows:,} rows)"
    if composition.available_tokens < spec.token_budget:
        yield (
            f"The budget of {spec.token_budget:,} tokens is more than the {available} that match "
            "the slices: lower the budget or widen them."
        )


def _wanted_by_slice(spec: SetSpec, pool: Pool) -> list[_Wanted]:
    budgets = by_weight(spec.token_budget, [part.weight for part in spec.slices])
    wanted = []
    for number, (part, budget) in enumerate(zip(spec.slices, budgets, strict=True)):
        rows = np.flatnonzero(pool.matching(part))
        wanted.append(_Wanted(number, part, budget, rows, int(pool.tokens[rows].sum())))
    return wanted


def _fill_slice(
    want: _Wanted, pool: Pool, free: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], list[Quota]]:
    """The rows a slice takes of those still free, and what each of its values got."""
    rows = want.rows[free[want.rows]]
    facet = want.part.balance
    if facet is None:
        return _pour([rows], pool.tokens, want.budget)[0], []
    values = _balanced_values(want, pool, facet)
    strata = _strata(rows, pool, facet, values)
    taken = _pour(strata, pool.tokens, want.budget)
    quotas = _quotas(want, pool, facet, values, strata, taken)
    return np.concatenate(taken) if taken else rows[:0], quotas


def _balanced_values(want: _Wanted, pool: Pool, facet: Facet) -> list[str]:
    """The values to be filled: those the slice lists, or all that its rows have."""
    listed = want.part.facets.get(facet)
    if listed:
        return list(dict.fromkeys(listed))
    return pool.facets[facet].present(want.rows)


def _strata(
    rows: NDArray[np.intp], pool: Pool, facet: Facet, values: Sequence[str]
) -> list[NDArray[np.intp]]:
    """The rows of each value, each in the order given."""
    column = pool.facets[facet]
    codes = column.codes[rows]
    if len(column.values) < np.iinfo(np.int16).max:
        codes = codes.astype(np.int16)  # numpy sorts 16 bits by radix, five times as fast
    by_code = np.argsort(codes, kind="stable")
    code_of = {value: code for code, value in enumerate(column.values)}
    wanted = np.array([code_of.get(value, len(column.values)) for value in values], dtype=np.int32)
    first = np.searchsorted(codes, wanted, side="left", sorter=by_code)
    last = np.searchsorted(codes, wanted, side="right", sorter=by_code)
    return [rows[by_code[a:b]] for a, b in zip(first, last, strict=True)]


def _pour(
    strata: Sequence[NDArray[np.intp]], tokens: NDArray[np.int64], budget: int
) -> list[NDArray[np.intp]]:
    """Rows of each stratum so that their tokens are as equal as whole rows allow, together at
    most ``budget``: equal quotas first, then a row to those with none, then row by row to the
    poorest."""
    lengths = [tokens[rows] for rows in strata]
    available = np.array([int(length.sum()) for length in lengths], dtype=np.int64)
    counts = [
        int(np.searchsorted(np.cumsum(length), quota, side="right"))
        for length, quota in zip(lengths, equally(budget, available), strict=True)
    ]
    left = budget - sum(int(n[:count].sum()) for n, count in zip(lengths, counts, strict=True))
    orders = [np.arange(len(rows)) for rows in strata]
    for stratum, position in _first_rows(lengths, counts, left):
        orders[stratum] = np.concatenate(([position], np.delete(orders[stratum], position)))
        lengths[stratum] = lengths[stratum][orders[stratum]]
        counts[stratum] = 1
        left -= int(lengths[stratum][0])
    _top_up(lengths, counts, left)
    return [rows[order[:count]] for rows, order, count in zip(strata, orders, counts, strict=True)]


def _first_rows(
    lengths: Sequence[NDArray[np.int64]], counts: Sequence[int], left: int
) -> Iterator[tuple[int, int]]:
    """A row for each stratum that has rows and got none, as (stratum, position), so that every
    value the sources have is fed where the budget allows.

    Their quota is less than their next row. Each takes the first row that is no longer than an
    equal part of what is left, or else its shortest; strata with the shortest rows come first,
    so that as many as possible are fed.
    """
    empty = [i for i, length in enumerate(lengths) if not counts[i] and len(length)]
    empty.sort(key=lambda i: (int(lengths[i].min()), i))
    for remaining, stratum in zip(range(len(empty), 0, -1), empty, strict=True):
        length = lengths[stratum]
        fitting = np.flatnonzero(length <= left // remaining)
        position = int(fitting[0]) if len(fitting) else int(length.argmin())
        if length[position] > left:
            return
        left -= int(length[position])
        yield stratum, position


def _top_up(lengths: Sequence[NDArray[np.int64]], counts: list[int], left: int) -> None:
    """Raise ``counts``, one row at a time: the stratum with the fewest tokens takes its next row,
    and is done when that does not fit in what is left."""
    queue = [
        (int(length[:count].sum()), stratum)
        for stratum, (length, count) in enumerate(zip(lengths, counts, strict=True))
    ]
    heapq.heapify(queue)
    while queue and left > 0:
        tokens, stratum = heapq.heappop(queue)
        length, count = lengths[stratum], counts[stratum]
        if count < len(length) and length[count] <= left:
            counts[stratum] += 1
            left -= int(length[count])
            heapq.heappush(queue, (tokens + int(length[count]), stratum))


def _quotas(
    want: _Wanted,
    pool: Pool,
    facet: Facet,
    values: Sequence[str],
    strata: Sequence[NDArray[np.intp]],
    taken: Sequence[NDArray[np.intp]],
) -> list[Quota]:
    asked = equally(want.budget, np.full(len(values), want.budget, dtype=np.int64)).tolist()
    available = pool.facets[facet].sums(pool.tokens, want.rows)
    return [
        Quota(
            slice=want.part.name,
            facet=facet,
            value=value,
            asked=asked[i],
            got=int(pool.tokens[taken[i]].sum()),
            available=available.get(value, 0),
            rows=len(taken[i]),
            exhausted=len(taken[i]) == len(strata[i]),
        )
        for i, value in enumerate(values)
    ]


def _result(want: _Wanted, pool: Pool, chosen: NDArray[np.intp]) -> SliceResult:
    return SliceResult(
        name=want.part.name,
        budget=want.budget,
        tokens=int(pool.tokens[chosen].sum()),
        rows=len(chosen),
        available_tokens=want.available,
        available_rows=len(want.rows),
    )


def _mixed(chosen: Sequence[NDArray[np.intp]]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """All chosen rows in seeded order, so that any part of the set is a sample of it, and the
    slice of each."""
    rows = np.concatenate(chosen)
    number = np.repeat(np.arange(len(chosen)), [len(part) for part in chosen])
    order = np.argsort(rows)
    return rows[order], number[order]


def _warnings(
    wanted: Sequence[_Wanted],
    pool: Pool,
    slices: Sequence[SliceResult],
    quotas: dict[int, list[Quota]],
) -> Iterator[str]:
    for want, result in zip(wanted, slices, strict=True):
        yield from _missing_values(want, pool)
        yield from (quota.sentence for quota in quotas[want.number] if quota.short)
        if result.available_rows and not result.rows:
            yield (
                f"Slice {result.name!r} got nothing: its share of {result.budget:,} tokens is "
                "less than its shortest row, or other slices took all of its rows."
            )
        elif 0 < result.available_tokens < result.budget:
            yield (
                f"Slice {result.name!r} got {result.tokens:,} of its {result.budget:,} tokens: "
                f"its rows hold {result.available_tokens:,}."
            )


def _missing_values(want: _Wanted, pool: Pool) -> Iterator[str]:
    """Values a slice lists that none of its rows has; those of a balanced facet are quotas."""
    for facet, listed in want.part.facets.items():
        if facet == want.part.balance:
            continue
        present = set(pool.facets[facet].present(want.rows))
        for value in listed:
            if value not in present:
                yield f"Slice {want.part.name!r} has no rows in {label_of(facet, value)}."


def _matching_any(wanted: Sequence[_Wanted], pool: Pool) -> NDArray[np.bool_]:
    mask = np.zeros(len(pool), dtype=np.bool_)
    for want in wanted:
        mask[want.rows] = True
    return mask


def _asks_for(part: Slice) -> str:
    """The facet values of a slice in words."""
    parts = [
        f"{facet.label.lower()} {' or '.join(label_of(facet, value) for value in values)}"
        for facet, values in part.facets.items()
        if values
    ]
    if part.balance is not None and not part.facets.get(part.balance):
        parts.append(f"any {part.balance.label.lower()}")
    return " and ".join(parts) or "any row"

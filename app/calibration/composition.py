"""What a set is made of: rows chosen by stratified, seeded sampling.

Slices of a fixed size choose first; the others share by weight what these leave of the budget.
Inside a slice that balances a facet the values are filled like water: the value with the least
takes the next of its rows, in seeded random order, until no next row fits. Rows are whole, so
parts are equal up to one row. A share smaller than a value's next row is met with a shorter row
of it: every value is fed first.

A row is chosen at most once. Slices that name their rows choose before all others. Where slices
want the same rows, the one whose rows are scarcest for its budget (fewest available for every one
asked) chooses first, and equally scarce ones in the order of the composition: so a narrow slice is
not emptied by a wide one. Slices that take every row there is come last of the fixed ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.calibration import wording
from app.calibration.filling import pour, strata_of
from app.calibration.pool import Candidate, Pool
from app.calibration.quotas import by_weight, equally
from app.calibration.spec import SetSpec, Slice
from app.errors import CompositionRefused
from app.facets import Facet

# In the manifest of every set: another way of choosing is another set.
ALGORITHM = 2

Unit = Literal["tokens", "rows"]


@dataclass(frozen=True)
class Quota:
    """What one value of a balanced facet was to get in a slice and got, in ``unit``.

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
    unit: Unit = "tokens"

    @property
    def short(self) -> bool:
        """Whether the value fell short for want of rows, or got none at all."""
        return (self.exhausted and self.got < self.asked) or self.rows == 0

    @property
    def sentence(self) -> str:
        """The shortfall in words."""
        return wording.quota_in_words(self)


@dataclass(frozen=True)
class SliceResult:
    """What one slice was to get and got. ``budget`` is in tokens, None where the slice counts
    rows; ``asked_rows`` is None where it counts tokens, and where it takes every row."""

    name: str
    budget: int | None
    asked_rows: int | None
    tokens: int
    rows: int
    available_tokens: int
    available_rows: int


@dataclass(frozen=True)
class Composition:
    """The chosen rows in seeded random order: their positions in ``pool``, which is in that
    order too, the number of the slice of each, and the tokens of each, its prompt included.

    ``shared_budget`` is what fixed slices leave of the budget, in tokens (None: no slice has a
    weight); ``shared_rows`` and ``shared_tokens`` are those of the rows they leave that match
    any slice with a weight.
    """

    pool: Pool
    rows: NDArray[np.intp]
    slice_of_row: NDArray[np.intp]
    lengths: NDArray[np.int64]
    shared_budget: int | None
    shared_rows: int
    shared_tokens: int
    slices: tuple[SliceResult, ...]
    quotas: tuple[Quota, ...]
    refusals: tuple[str, ...]
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
        return int(self.lengths.sum())

    @property
    def shortfalls(self) -> tuple[Quota, ...]:
        """The values that could not be filled."""
        return tuple(quota for quota in self.quotas if quota.short)


@dataclass(frozen=True)
class Wanted:
    """A slice with the rows it may take, in seeded order, the tokens of every row of the pool as
    the slice has it, and what its rows hold."""

    number: int
    part: Slice
    rows: NDArray[np.intp]
    tokens: NDArray[np.int64]
    available: int

    @property
    def asked_rows(self) -> int | None:
        """How many rows a slice that counts rows may take; None where it counts tokens."""
        if self.part.rows == "all":
            return len(self.rows)
        return self.part.rows

    @property
    def fixed_turn(self) -> tuple[bool, bool, Fraction, int]:
        """Among fixed slices: those that name rows first, those that take all last, between them
        the scarcest first."""
        has, asked = (
            (self.available, self.part.tokens)
            if self.part.tokens is not None
            else (len(self.rows), self.asked_rows)
        )
        scarcity = Fraction(has, max(asked or 1, 1))
        return not self.part.row_ids, self.part.rows == "all", scarcity, self.number

    def shared_turn(self, budget: int) -> tuple[bool, Fraction, int]:
        """Among slices with a weight: those that name rows first, then the scarcest: available
        tokens for every token of the budget."""
        return not self.part.row_ids, Fraction(self.available, max(budget, 1)), self.number


@dataclass
class _Choice:
    """A set while its rows are being chosen: ``left`` tokens of the budget (None: no limit)."""

    pool: Pool
    left: int | None
    free: NDArray[np.bool_]
    budgets: dict[int, int | None] = field(default_factory=dict)
    chosen: dict[int, NDArray[np.intp]] = field(default_factory=dict)
    quotas: dict[int, list[Quota]] = field(default_factory=dict)
    cut_short: list[str] = field(default_factory=list)

    def take(self, want: Wanted, budget: int | None) -> None:
        """Have a slice choose among the rows that are free: ``budget`` tokens, or its rows."""
        rows = want.rows[self.free[want.rows]]
        asked, unit = (want.asked_rows or 0, "rows") if budget is None else (budget, "tokens")
        amounts = want.tokens if unit == "tokens" else _ones(len(self.pool))
        taken, quotas = _fill(want, self.pool, rows, amounts, asked)
        kept = self._within_budget(taken, want.tokens)
        if len(kept) < len(taken):
            self.cut_short.append(want.part.name)
        self.budgets[want.number] = budget
        self.chosen[want.number] = kept
        self.quotas[want.number] = quotas
        self.free[kept] = False
        if self.left is not None:
            self.left -= int(want.tokens[kept].sum())

    def _within_budget(self, rows: NDArray[np.intp], tokens: NDArray[np.int64]) -> NDArray[np.intp]:
        """The rows, in seeded order, that what is left of the budget holds."""
        if self.left is None or int(tokens[rows].sum()) <= self.left:
            return rows
        rows = np.sort(rows)
        fitting: NDArray[np.intp] = rows[np.cumsum(tokens[rows]) <= self.left]
        return fitting


def compose(spec: SetSpec, rows: Pool | Sequence[Candidate]) -> Composition:
    """Choose the rows of a set.

    Raises CompositionRefused when a slice matches no row, naming it and what it asks for, when
    fixed slices ask for more than the budget, and when what they leave of it is more than the
    rows hold that match the others. A slice or value that has too little of its own is no
    refusal: it is in ``shortfalls`` and ``warnings``.
    """
    pool = rows if isinstance(rows, Pool) else Pool.of(rows)
    composition = preview(spec, pool)
    for sentence in composition.refusals:
        raise CompositionRefused(sentence)
    return composition


def preview(spec: SetSpec, pool: Pool) -> Composition:
    """Choose as :func:`compose` does, but refuse nothing: for totals while a person works."""
    pool = pool.in_random_order(spec.seed)
    wanted = [_wanted(number, part, pool) for number, part in enumerate(spec.slices)]
    choice = _Choice(pool, spec.token_budget, np.ones(len(pool), dtype=np.bool_))
    fixed = [want for want in wanted if want.part.is_fixed]
    for want in sorted(fixed, key=lambda want: want.fixed_turn):
        choice.take(want, want.part.tokens)
    shared = [want for want in wanted if not want.part.is_fixed]
    shared_budget = choice.left if shared else None
    matching = _free_rows_of_any(shared, choice)
    for want, budget in _in_turn(shared, shared_budget or 0):
        choice.take(want, budget)
    slices = tuple(_result(want, choice) for want in wanted)
    composition = Composition(
        pool,
        *_mixed(wanted, choice),
        shared_budget=shared_budget,
        shared_rows=len(matching),
        shared_tokens=int(pool.tokens[matching].sum()),
        slices=slices,
        quotas=tuple(quota for want in wanted for quota in choice.quotas[want.number]),
        refusals=(),
        warnings=tuple(wording.warnings(wanted, pool, slices, choice.quotas)),
    )
    sentences = tuple(wording.refusals(spec, composition, choice.cut_short))
    return replace(composition, refusals=sentences) if sentences else composition


def _wanted(number: int, part: Slice, pool: Pool) -> Wanted:
    rows, tokens = np.flatnonzero(pool.matching(part)), pool.tokens_in(part)
    return Wanted(number, part, rows, tokens, int(tokens[rows].sum()))


def _in_turn(shared: Sequence[Wanted], total: int) -> list[tuple[Wanted, int]]:
    """Slices with a weight and their shares of ``total`` tokens, in the order they choose."""
    budgets = by_weight(total, [want.part.weight or 0.0 for want in shared]) if shared else []
    pairs = list(zip(shared, budgets, strict=True))
    return sorted(pairs, key=lambda pair: pair[0].shared_turn(pair[1]))


def _fill(
    want: Wanted, pool: Pool, rows: NDArray[np.intp], amounts: NDArray[np.int64], asked: int
) -> tuple[NDArray[np.intp], list[Quota]]:
    """The rows a slice takes of those given, and what each of its values got."""
    facet = want.part.balance
    if facet is None:
        return pour([rows], amounts, asked)[0], []
    values = _balanced_values(want, pool, facet)
    strata = strata_of(rows, pool.facets[facet], values)
    taken = pour(strata, amounts, asked)
    quotas = list(_quotas(want, pool, facet, values, strata, taken, amounts, asked))
    return np.concatenate(taken) if taken else rows[:0], quotas


def _balanced_values(want: Wanted, pool: Pool, facet: Facet) -> list[str]:
    """The values to be filled: those the slice lists, or all that its rows have."""
    listed = want.part.facets.get(facet)
    if listed:
        return list(dict.fromkeys(listed))
    return pool.facets[facet].present(want.rows)


def _quotas(
    want: Wanted,
    pool: Pool,
    facet: Facet,
    values: Sequence[str],
    strata: Sequence[NDArray[np.intp]],
    taken: Sequence[NDArray[np.intp]],
    amounts: NDArray[np.int64],
    asked: int,
) -> Iterator[Quota]:
    shares = equally(asked, np.full(len(values), asked, dtype=np.int64)).tolist()
    available = pool.facets[facet].sums(amounts, want.rows)
    for i, value in enumerate(values):
        yield Quota(
            slice=want.part.name,
            facet=facet,
            value=value,
            asked=shares[i],
            got=int(amounts[taken[i]].sum()),
            available=available.get(value, 0),
            rows=len(taken[i]),
            exhausted=len(taken[i]) == len(strata[i]),
            unit="tokens" if want.part.rows is None else "rows",
        )


def _result(want: Wanted, choice: _Choice) -> SliceResult:
    chosen = choice.chosen[want.number]
    return SliceResult(
        name=want.part.name,
        budget=choice.budgets[want.number],
        asked_rows=None if want.part.rows == "all" else want.part.rows,
        tokens=int(want.tokens[chosen].sum()),
        rows=len(chosen),
        available_tokens=want.available,
        available_rows=len(want.rows),
    )


def _mixed(
    wanted: Sequence[Wanted], choice: _Choice
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int64]]:
    """All chosen rows in seeded order, so that any part of the set is a sample of it, the slice
    and the tokens of each."""
    chosen = [choice.chosen[want.number] for want in wanted]
    rows = np.concatenate(chosen)
    number = np.repeat(np.arange(len(chosen)), [len(part) for part in chosen])
    pairs = zip(wanted, chosen, strict=True)
    lengths = np.concatenate([want.tokens[part] for want, part in pairs])
    order = np.argsort(rows)
    return rows[order], number[order], lengths[order]


def _free_rows_of_any(wanted: Sequence[Wanted], choice: _Choice) -> NDArray[np.intp]:
    """The rows that are free and match any of some slices."""
    mask = np.zeros(len(choice.pool), dtype=np.bool_)
    for want in wanted:
        mask[want.rows] = True
    return np.flatnonzero(mask & choice.free)


def _ones(count: int) -> NDArray[np.int64]:
    return np.ones(count, dtype=np.int64)

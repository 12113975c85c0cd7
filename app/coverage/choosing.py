"""A pool's profile → the rows to calibrate on, and what they are worth against random rows.

The quotas are the pool's own composition: each slice gets its share of the budget, and where it
balances a facet each value an equal part of that, as far as the pool has tokens of it. Random rows
under the same budget and quotas are drawn beside the chosen ones, with the set's seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.calibration.pool import row_hashes, sampling_keys
from app.calibration.quotas import by_weight, equally
from app.calibration.spec import SetSpec, Slice
from app.coverage.objectives import ActivationSpread, ExpertFloors, Objective, clipped
from app.coverage.profile import Profile, ProfileRefused
from app.coverage.selection import Choice, Purse, choose, random_choice

Aim = Literal["experts", "activations"]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Wish:
    """What a person asks of a choice: how many tokens at most, how many each expert should get
    (None: an even share of the budget), and what the rows are chosen by."""

    budget: int
    floor: int | None = None
    aim: Aim = "experts"
    seed: int = 0


@dataclass(frozen=True)
class Group:
    """Rows with a quota: those of a slice, or of one value in it. Amounts are tokens."""

    slice: str
    value: str
    quota: int
    available: int


@dataclass(frozen=True)
class Chosen:
    """The rows chosen, as positions in the pool in the order of choice.

    ``raised`` is how many tokens each added to experts that had not reached the floor,
    ``random_rows`` the random rows beside them, ``groups`` the quotas and ``group_of_row`` the
    group of each of the pool's rows, -1 for none.
    """

    profile: Profile
    floor: int
    rows: NDArray[np.intp]
    gains: NDArray[np.float64]
    raised: Counts
    random_rows: NDArray[np.intp]
    groups: tuple[Group, ...]
    group_of_row: NDArray[np.intp]

    @property
    def tokens(self) -> int:
        """Tokens of the chosen rows."""
        return int(self.profile.tokens[self.rows].sum())

    @property
    def row_ids(self) -> list[str]:
        """Ids of the chosen rows, in the order of choice."""
        return [str(row_id) for row_id in self.profile.row_ids[self.rows]]

    @property
    def fed(self) -> Counts:
        """Tokens each expert gets from the chosen rows, [layers, experts]."""
        return self.profile.fed_by(self.rows)

    @property
    def fed_at_random(self) -> Counts:
        """Tokens each expert gets from the random rows, [layers, experts]."""
        return self.profile.fed_by(self.random_rows)


def choose_rows(profile: Profile, spec: SetSpec | None, wish: Wish) -> Chosen:
    """Choose rows of a pool.

    ``spec`` is the pool's composition; without one the whole budget is one quota. Raises
    ProfileRefused for a dense model, a pool smaller than the budget, and one no row of which fits.
    """
    _refuse_unfit(profile, wish)
    groups, group_of_row = quotas_of(profile, spec, wish.budget)
    purse = Purse(
        tokens=profile.tokens,
        groups=group_of_row,
        quotas=np.array([group.quota for group in groups], dtype=np.int64),
        slices=np.unique([group.slice for group in groups], return_inverse=True)[1],
        budget=wish.budget,
    )
    order = np.argsort(sampling_keys(row_hashes(profile.row_ids.tolist()), wish.seed))
    floor = wish.floor or even_share(profile, wish.budget)
    found = choose(_objective(profile, wish, floor), purse, order)
    if not len(found.rows):
        raise ProfileRefused(
            f"No row of the pool fits a budget of {wish.budget:,} tokens: its shortest has "
            f"{int(profile.tokens.min()):,}. Raise the budget."
        )
    return Chosen(
        profile=profile,
        floor=floor,
        rows=found.rows,
        gains=found.gains,
        raised=_raised(profile, found, floor),
        random_rows=random_choice(purse, order).rows,
        groups=groups,
        group_of_row=group_of_row,
    )


def even_share(profile: Profile, budget: int) -> int:
    """Tokens each expert would get of a budget if all got the same, at least 1."""
    return max(1, budget * profile.top_k // max(1, profile.experts))


def worst_fed(counts: Counts, part: float) -> float:
    """Mean tokens of the worst-fed ``part`` of all (layer, expert) cells, at least one cell."""
    cells = np.sort(counts, axis=None)
    return float(cells[: max(1, int(np.ceil(part * len(cells))))].mean()) if len(cells) else 0.0


def as_set(chosen: Chosen, pool: SetSpec, name: str) -> SetSpec:
    """The chosen rows as a composition: the pool's, each slice with these rows and no others.

    Slices that got none are left out. Raises ProfileRefused for a pool whose rows are joined.
    """
    if pool.packing:
        raise ProfileRefused(
            "The pool joins its rows into sequences (packing), so rows of it cannot be chosen: "
            "profile the same composition without packing."
        )
    slices = chosen.profile.column("slice")[chosen.rows]
    ids = chosen.profile.row_ids[chosen.rows]
    parts = [
        Slice(
            name=part.name,
            rows="all",
            row_ids=tuple(sorted(ids[slices == part.name].tolist())),
            facets=part.facets,
            sources=part.sources,
            prompt=part.prompt,
        )
        for part in pool.slices
        if (slices == part.name).any()
    ]
    return SetSpec.model_validate(
        pool.model_dump() | {"name": name, "slices": parts, "token_budget": None}
    )


def quotas_of(
    profile: Profile, spec: SetSpec | None, budget: int
) -> tuple[tuple[Group, ...], NDArray[np.intp]]:
    """The groups of a pool with their quotas, and the group of each row (-1: of none).

    Slices share the budget by weight, or, where one of them is fixed, by their tokens in the
    pool; a slice that balances a facet shares its part equally over that facet's values.
    """
    group_of_row = np.full(len(profile.row_ids), -1, dtype=np.intp)
    groups: list[Group] = []
    slices = profile.column("slice") if spec is not None else np.array([])
    for part, quota in _slice_quotas(profile, spec, budget):
        of_slice = slices == part.name if part else np.ones(len(group_of_row), dtype=np.bool_)
        for value, wanted, rows in _values(profile, part, quota, np.flatnonzero(of_slice)):
            group_of_row[rows] = len(groups)
            available = int(profile.tokens[rows].sum())
            groups.append(Group(part.name if part else "", value, wanted, available))
    return tuple(groups), group_of_row


def _slice_quotas(
    profile: Profile, spec: SetSpec | None, budget: int
) -> Iterator[tuple[Slice | None, int]]:
    if spec is None:
        yield None, budget
        return
    column = profile.column("slice")
    sizes = [int(profile.tokens[column == part.name].sum()) for part in spec.slices]
    weights = [part.weight or 0.0 for part in spec.slices]
    if not all(weights):
        weights = [float(size) for size in sizes]
    shares = [weight if size else 0.0 for weight, size in zip(weights, sizes, strict=True)]
    if not any(shares):
        raise ProfileRefused(
            "No row of the pool belongs to a slice of its composition: profile the set again."
        )
    yield from zip(spec.slices, by_weight(budget, shares), strict=True)


def _values(
    profile: Profile, part: Slice | None, quota: int, rows: NDArray[np.intp]
) -> Iterator[tuple[str, int, NDArray[np.intp]]]:
    """The values of a slice that balances a facet, else the slice as a whole: name, quota, rows."""
    if part is None or part.balance is None or not len(rows):
        yield "", quota, rows
        return
    column = profile.column(part.balance.value)[rows]
    names = np.unique(column)
    by_name = [rows[column == name] for name in names]
    available = np.array([profile.tokens[each].sum() for each in by_name], dtype=np.int64)
    quotas = equally(quota, available).tolist()
    yield from zip((str(name) for name in names), quotas, by_name, strict=True)


def _objective(profile: Profile, wish: Wish, floor: int) -> Objective:
    if wish.aim == "activations":
        return ActivationSpread(profile.vectors, wish.seed)
    return ExpertFloors(clipped(profile.row_counts, floor), floor)


def _raised(profile: Profile, found: Choice, floor: int) -> Counts:
    """Tokens each chosen row added, at its turn, to experts below the floor."""
    fed = np.zeros(profile.counts.shape[1:], dtype=np.int64)
    raised = np.empty(len(found.rows), dtype=np.int64)
    for turn, row in enumerate(found.rows):
        after = fed + profile.fed_by(np.array([row]))
        raised[turn] = np.minimum(after, floor).sum() - np.minimum(fed, floor).sum()
        fed = after
    return raised


def _refuse_unfit(profile: Profile, wish: Wish) -> None:
    if not profile.experts:
        raise ProfileRefused("The model is dense: it has no experts to choose rows for.")
    if wish.budget >= profile.total_tokens:
        raise ProfileRefused(
            f"The pool has {profile.total_tokens:,} tokens and the budget is {wish.budget:,}: "
            "there is nothing to choose. Profile a larger pool, or lower the budget."
        )

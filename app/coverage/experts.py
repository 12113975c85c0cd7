"""One expert: who feeds it, who works with it, and who else would feed it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.coverage.profile import Profile, ProfileRefused
from app.coverage.summary import ranks
from app.errors import NotFound


@dataclass(frozen=True)
class Feeding:
    """What the rows of one facet value give an expert.

    ``tokens`` are those routed to it, ``share`` their part of all the expert gets, ``rate`` how
    many of a thousand tokens of that value are routed to it.
    """

    value: str
    tokens: int
    share: float
    rate: float


@dataclass(frozen=True)
class FeedingRow:
    """A row that feeds an expert: tokens routed to it, of all the row has, and the row's place in
    the profile."""

    row: int
    row_id: str
    tokens: int
    of: int


@dataclass(frozen=True)
class Companion:
    """An expert of the same layer: ``tokens`` routed to both, ``share`` of this expert's tokens,
    ``lift`` that share over the one by chance: what it were if the token's other top-k - 1 experts
    were drawn from the layer's others in proportion to their loads. Over all others, each weighted
    by its load, lifts have the mean 1."""

    expert: int
    tokens: int
    share: float
    lift: float


@dataclass(frozen=True)
class Load:
    """An expert's load: ``share`` is of its layer's routed tokens, ``to_mean`` its tokens over the
    layer's mean, ``rank`` 1 for the most of its layer."""

    tokens: int
    share: float
    to_mean: float
    mass: float
    rank: int


def place_of(profile: Profile, layer: int, expert: int) -> int:
    """Where a decoder layer's counts are in the profile. Raises NotFound."""
    found = np.flatnonzero(profile.layers == layer)
    if not len(found) or not 0 <= expert < profile.experts:
        raise NotFound(
            f"There is no expert {expert} in layer {layer}: the model has experts 0 to "
            f"{profile.experts - 1} in layers {_spans(profile.layers)}."
        )
    return int(found[0])


def load_of(profile: Profile, layer: int, expert: int) -> Load:
    """An expert's load. Raises NotFound."""
    place = place_of(profile, layer, expert)
    counts = profile.layer_counts
    tokens, total = int(counts[place, expert]), int(counts[place].sum())
    return Load(
        tokens=tokens,
        share=tokens / max(1, total),
        to_mean=tokens * profile.experts / max(1, total),
        mass=float(profile.layer_mass[place, expert]),
        rank=int(ranks(counts)[place, expert]),
    )


def feedings(profile: Profile, layer: int, expert: int, column: str) -> list[Feeding]:
    """What each value of a facet column gives an expert, the most tokens first."""
    place = place_of(profile, layer, expert)
    fed, values = profile.fed(place, expert), profile.column(column)
    total = int(fed.sum())
    found = []
    for value in profile.values(column):
        rows = values == value
        tokens = int(fed[rows].sum())
        rate = 1000 * tokens / max(1, int(profile.tokens[rows].sum()))
        found.append(Feeding(value, tokens, tokens / max(1, total), rate))
    return sorted(found, key=lambda one: (-one.tokens, one.value))


def feeding_rows(
    profile: Profile, layer: int, expert: int, top: int, but: NDArray[np.str_] | None = None
) -> list[FeedingRow]:
    """The rows that feed an expert most, those of ids in ``but`` left out."""
    place = place_of(profile, layer, expert)
    fed = profile.fed(place, expert)
    if but is not None:
        fed = np.where(np.isin(profile.row_ids, but), 0, fed)
    best = np.argsort(-fed, kind="stable")[:top]
    return [
        FeedingRow(int(row), str(profile.row_ids[row]), int(fed[row]), int(profile.tokens[row]))
        for row in best
        if fed[row]
    ]


def companions(profile: Profile, layer: int, expert: int, top: int) -> list[Companion] | None:
    """The experts chosen for the same tokens, the most first; None where pairs were not counted."""
    place = place_of(profile, layer, expert)
    if profile.together is None:
        return None
    both = profile.together[place, expert].astype(np.int64)
    loads = np.diagonal(profile.together[place]).astype(np.int64)
    own, others = int(both[expert]), int(loads.sum() - loads[expert])
    both[expert] = 0
    found = []
    for other in np.argsort(-both, kind="stable")[:top]:
        if both[other]:
            share = int(both[other]) / own
            by_chance = (profile.top_k - 1) * int(loads[other]) / others
            found.append(Companion(int(other), int(both[other]), share, share / by_chance))
    return found


def require_same_model(one: Profile, other: Profile, names: tuple[str, str]) -> None:
    """Refuse to hold profiles of different models together. Raises ProfileRefused."""
    if one.counts.shape[1:] != other.counts.shape[1:] or one.top_k != other.top_k:
        shapes = [
            f"{len(p.layers)} layers of {p.experts} experts, top-{p.top_k}" for p in (one, other)
        ]
        raise ProfileRefused(
            f"These are profiles of different models: {names[0]} has {shapes[0]}, {names[1]} has "
            f"{shapes[1]}. Take two profiles of one model."
        )
    if one.model and other.model and one.model != other.model:
        raise ProfileRefused(
            f"These are profiles of different models: {names[0]} and {names[1]} have experts of "
            "the same number but other weights. Take two profiles of one model."
        )


def _spans(layers: NDArray[np.int64]) -> str:
    return f"{layers.min()} to {layers.max()}" if len(layers) else "none"

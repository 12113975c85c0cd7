"""What the routing counts say: who is starved, how even the load is, who feeds whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from app.coverage.profile import Profile
from app.coverage.unreached import by_layer
from app.formatting import counted, percent

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Floor:
    """Below it an expert is starved: fewer than ``min_tokens`` tokens, or less than ``min_share``
    of its layer's mean."""

    min_tokens: int = 64
    min_share: float = 0.05


DEFAULT_FLOOR = Floor()
# An expert is fed by one value alone when this part of its tokens, or more, is of that value.
ALONE = 0.9
FEEDING_COLUMNS = ("spoken_language", "programming_language", "source")


@dataclass(frozen=True)
class Starved:
    """An expert below the floor; ``missing`` is the tokens it lacks to reach it."""

    layer: int
    expert: int
    tokens: int
    missing: int


@dataclass(frozen=True)
class LayerBalance:
    """How evenly one layer's tokens fall on its experts.

    ``entropy`` is Shannon's, divided by that of an even load: 1 is even, 0 is one expert alone.
    ``gini`` is 0 when even and (experts - 1) / experts when one expert has all. Both are None
    when no token was routed.
    """

    layer: int
    tokens: int
    experts: int
    dead: int
    starved: int
    smallest: int
    largest: int
    entropy: float | None
    gini: float | None


@dataclass(frozen=True)
class Feeder:
    """A facet value that feeds an expert: ``share`` of the tokens the expert gets."""

    value: str
    tokens: int
    share: float


@dataclass(frozen=True)
class FedByOne:
    """An expert that gets nearly all of its tokens from one value of a facet column."""

    layer: int
    expert: int
    column: str
    value: str
    tokens: int
    share: float


def floors(counts: Counts, floor: Floor) -> NDArray[np.int64]:
    """Tokens every expert of each layer should have at least, [layers]."""
    if not counts.size:
        return np.zeros(len(counts), dtype=np.int64)
    # 0.28 × 2,425 is 679.0000000000001 in floating point, and 679 tokens are not less than that.
    of_mean = np.ceil(np.round(counts.mean(axis=1) * floor.min_share, 6)).astype(np.int64)
    return cast("Counts", np.maximum(of_mean, floor.min_tokens))


def starved(profile: Profile, floor: Floor = DEFAULT_FLOOR) -> list[Starved]:
    """Experts below the floor, the worst fed first; those with no token at all are among them."""
    counts = profile.layer_counts
    needed = floors(counts, floor)
    below = np.argwhere(counts < needed[:, None])
    found = [
        Starved(
            layer=int(profile.layers[row]),
            expert=int(expert),
            tokens=int(counts[row, expert]),
            missing=int(needed[row] - counts[row, expert]),
        )
        for row, expert in below
    ]
    return sorted(found, key=lambda one: (one.tokens, one.layer, one.expert))


def tokens_missing(profile: Profile, floor: Floor = DEFAULT_FLOOR) -> int:
    """Routed tokens still missing until every expert has its floor."""
    counts = profile.layer_counts
    return int(np.maximum(floors(counts, floor)[:, None] - counts, 0).sum())


def fed_by_one(profile: Profile, column: str, alone: float = ALONE) -> list[FedByOne]:
    """The experts fed by a single value of a column: the largest share first.

    A value that is ``alone`` or more of the whole set feeds every expert alone, which says nothing
    of the experts: it is left out.
    """
    values, counts = profile.counts_by(column)
    total = profile.layer_counts
    if not values or not total.size:
        return []
    of_set = counts.sum(axis=(1, 2)) / max(1, int(total.sum()))
    share = counts / np.maximum(total, 1)
    share[of_set >= alone] = 0.0
    found = [
        FedByOne(
            layer=int(profile.layers[row]),
            expert=int(expert),
            column=column,
            value=values[value],
            tokens=int(total[row, expert]),
            share=float(share[value, row, expert]),
        )
        for value, row, expert in np.argwhere(share >= alone)
    ]
    return sorted(found, key=lambda one: (-one.share, one.layer, one.expert))


def concerns(profile: Profile, floor: Floor = DEFAULT_FLOOR) -> list[str]:
    """What a person should know before spending hours on the set, one sentence each."""
    if not profile.experts:
        return []
    said = []
    missed = dead(profile)
    unreached, poor = len(missed), len(starved(profile, floor))
    if missed:
        said.append(
            f"{_experts_are(unreached)} reached by no token of the set: {by_layer(missed, 20)}."
        )
    if poor > unreached:
        said.append(
            f"{_experts_are(poor - unreached, 'more ' if unreached else '')} starved: fewer than "
            f"{counted(floor.min_tokens, 'token')}, or less than {100 * floor.min_share:g} % of "
            "the layer's mean. "
            f"{tokens_missing(profile, floor):,} routed tokens are missing in all."
        )
    for column in FEEDING_COLUMNS:
        if alone := fed_by_one(profile, column):
            said.append(
                f"{counted(len(alone), 'expert gets', 'experts get')} {percent(ALONE, 0)} or more "
                f"of {'its' if len(alone) == 1 else 'their'} tokens from a single "
                f"{column.replace('_', ' ')}: {_named(alone)}."
            )
    return said


def _experts_are(count: int, which: str = "") -> str:
    return counted(count, f"{which}expert is", f"{which}experts are")


def _named(found: list[FedByOne], most: int = 3) -> str:
    names = list(dict.fromkeys(one.value for one in found))
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def dead(profile: Profile) -> list[tuple[int, int]]:
    """Experts that no token reached, as (layer, expert)."""
    return [
        (int(profile.layers[row]), int(expert))
        for row, expert in np.argwhere(profile.layer_counts == 0)
    ]


def experts_reached(profile: Profile) -> tuple[int, int]:
    """How many experts at least one token reached, and how many there are, over all layers."""
    counts = profile.layer_counts
    return int((counts > 0).sum()), int(counts.size)


def balance(profile: Profile, floor: Floor = DEFAULT_FLOOR) -> list[LayerBalance]:
    """How evenly the load falls, layer by layer."""
    counts = profile.layer_counts
    needed = floors(counts, floor)
    return [
        LayerBalance(
            layer=int(layer),
            tokens=int(load.sum()),
            experts=len(load),
            dead=int((load == 0).sum()),
            starved=int((load < least).sum()),
            smallest=int(load.min()),
            largest=int(load.max()),
            entropy=entropy(load),
            gini=gini(load),
        )
        for layer, load, least in zip(profile.layers, counts, needed, strict=True)
    ]


def entropy(load: Counts) -> float | None:
    """Normalised Shannon entropy of one layer's load: -Σ p log p / log(experts)."""
    total = load.sum()
    if not total:
        return None
    if len(load) == 1:
        return 1.0
    share = load[load > 0] / total
    return float(-(share * np.log(share)).sum() / np.log(len(load))) + 0.0  # -0.0 becomes 0.0


def gini(load: Counts) -> float | None:
    """Gini coefficient of one layer's load: mean absolute difference over twice the mean."""
    total = load.sum()
    if not total:
        return None
    experts = len(load)
    rank = np.arange(1, experts + 1)
    return float((2 * (rank * np.sort(load)).sum()) / (experts * total) - (experts + 1) / experts)


def ranks(counts: Counts) -> NDArray[np.int64]:
    """The place of each expert in its layer by load, 1 the most; equal loads by expert number."""
    order = np.argsort(-counts, axis=1, kind="stable")
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.arange(1, counts.shape[1] + 1)[None, :], axis=1)
    return places


def shares(counts: Counts) -> NDArray[np.float64]:
    """The part of its layer's tokens each expert gets, from 0 to 1; 0 in a layer without any."""
    totals = counts.sum(axis=1, keepdims=True)
    return cast("NDArray[np.float64]", counts / np.maximum(totals, 1))


def feeders(profile: Profile, layer: int, expert: int, column: str, top: int = 3) -> list[Feeder]:
    """The values of a column that feed one expert most; ``layer`` is a decoder layer index."""
    row = int(np.flatnonzero(profile.layers == layer)[0])
    values, counts = profile.counts_by(column)
    fed = counts[:, row, expert]
    total = int(profile.layer_counts[row, expert])
    order = np.argsort(-fed, kind="stable")[:top]
    return [Feeder(values[i], int(fed[i]), int(fed[i]) / total) for i in order if fed[i]]


def summarise(
    profile: Profile, by: str | None = None, floor: Floor = DEFAULT_FLOOR
) -> dict[str, Any]:
    """The document of ``calibrant coverage --json``; with ``by`` (a facet column) the same for
    each of its values under ``slices``; ``note`` says so where no row has one."""
    document = _document(profile, floor)
    if by is not None:
        if not profile.values(by):
            document["note"] = document["note"] or f"No row has a {by.replace('_', ' ')}."
        document["by"] = by
        document["slices"] = {
            value: _document(profile.where(by, value), floor) for value in profile.values(by)
        }
    return document


def _document(profile: Profile, floor: Floor) -> dict[str, Any]:
    reached, total = experts_reached(profile)
    return {
        "tokens": profile.total_tokens,
        "rows": len(profile.row_ids),
        "top_k": profile.top_k,
        "experts_reached": reached,
        "experts_total": total,
        "tokens_missing": tokens_missing(profile, floor),
        "floor": {"min_tokens": floor.min_tokens, "min_share": floor.min_share},
        "layers": [
            {
                "layer": one.layer,
                "experts": load.tolist(),
                "dead": one.dead,
                "entropy": one.entropy,
                "gini": one.gini,
            }
            for one, load in zip(balance(profile, floor), profile.layer_counts, strict=True)
        ],
        "starved": [
            {"layer": one.layer, "expert": one.expert, "tokens": one.tokens, "missing": one.missing}
            for one in starved(profile, floor)
        ],
        "note": None if total else "The model is dense: it has no experts to reach.",
    }


CSV_HEADER = ("layer", "expert", "tokens", "share", "mass", "rank", "starved")


def expert_columns(profile: Profile, floor: Floor = DEFAULT_FLOOR) -> dict[str, NDArray[Any]]:
    """The heatmap as a table: the columns of :data:`CSV_HEADER`, an entry an expert, layer by
    layer."""
    counts = profile.layer_counts
    layers, experts = counts.shape
    return {
        "layer": np.repeat(profile.layers, experts),
        "expert": np.tile(np.arange(experts), layers),
        "tokens": counts.reshape(-1),
        "share": shares(counts).reshape(-1),
        "mass": profile.layer_mass.reshape(-1),
        "rank": ranks(counts).reshape(-1),
        "starved": (counts < floors(counts, floor)[:, None]).reshape(-1),
    }

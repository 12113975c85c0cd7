"""A profile small enough to check by hand: 3 rows, 2 MoE layers (1 and 3), 4 experts, top-2."""

from __future__ import annotations

import numpy as np

from app.coverage.profile import FACET_COLUMNS, Profile
from app.facets import DOMAINS, PROGRAMMING_LANGUAGES, SPOKEN_LANGUAGES

ROWS = [
    {"id": "a", "tokens": 6, "programming_language": "Rust", "domain": "code", "slice": "code"},
    {"id": "b", "tokens": 4, "programming_language": "Go", "domain": "code", "slice": "code"},
    {"id": "c", "tokens": 6, "spoken_language": "de", "domain": "law", "slice": "text"},
]
COUNTS = [
    [[5, 5, 0, 2], [6, 6, 0, 0]],
    [[4, 0, 0, 4], [4, 4, 0, 0]],
    [[1, 5, 5, 1], [7, 5, 0, 0]],
]


def small() -> Profile:
    counts = np.array(COUNTS, dtype=np.uint32)
    return Profile(
        counts=counts,
        mass=(counts / 2).astype(np.float32),
        layers=np.array([1, 3]),
        row_ids=np.array([row["id"] for row in ROWS]),
        tokens=np.array([row["tokens"] for row in ROWS]),
        top_k=2,
        facets={name: np.array([str(row.get(name, "")) for row in ROWS]) for name in FACET_COLUMNS},
    )


def dense() -> Profile:
    profile = small()
    return Profile(
        counts=np.zeros((3, 0, 0), dtype=np.uint32),
        mass=np.zeros((3, 0, 0), dtype=np.float32),
        layers=np.zeros(0, dtype=np.int64),
        row_ids=profile.row_ids,
        tokens=profile.tokens,
        top_k=0,
        facets=profile.facets,
    )


def large(layers: int, experts: int, rows: int = 300) -> Profile:
    """A large model on a set in which nothing goes with anything: no pattern helps to pack it."""
    chance = np.random.default_rng(1)
    taste = np.exp(1.5 * chance.standard_normal((layers, experts)))
    counts = chance.poisson(100 * taste, (rows, layers, experts)).astype(np.uint16)
    facets = {name: np.full(rows, "", dtype="<U30") for name in FACET_COLUMNS}
    for name, values in (
        ("programming_language", PROGRAMMING_LANGUAGES),
        ("spoken_language", list(SPOKEN_LANGUAGES)),
        ("domain", list(DOMAINS)),
        ("source", [f"source-{number}" for number in range(20)]),
    ):
        facets[name] = np.array(values)[chance.integers(0, len(values), rows)]
    return Profile(
        counts=counts,
        mass=counts.astype(np.float32),
        layers=np.arange(layers),
        row_ids=np.array([f"{row:04}" for row in range(rows)]),
        tokens=counts[:, 0].sum(axis=1).astype(np.int64),
        top_k=1,
        facets=facets,
    )

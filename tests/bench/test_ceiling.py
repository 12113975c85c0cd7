"""The bound of what a choice can give the worst-fed cells, against every choice there is."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from app.coverage.choosing import worst_fed
from app.coverage.selection import Purse
from bench.ceiling import ceiling


def purse(
    tokens: list[int], budget: int, groups: list[int] | None = None, quotas: list[int] | None = None
) -> Purse:
    """Without groups all rows are of one, whose quota is the budget."""
    limits = np.array(quotas or [budget])
    return Purse(
        tokens=np.array(tokens),
        groups=np.array(groups or [0] * len(tokens)),
        quotas=limits,
        slices=np.zeros_like(limits),
        budget=budget,
    )


def test_two_rows_that_feed_a_cell_each() -> None:
    counts = np.array([[[10, 0]], [[0, 10]]], dtype=np.uint32)
    # Half of the budget for each row gives both cells 5.
    assert ceiling(counts, purse([10, 10], 10), 0.5) == pytest.approx(5, rel=0.02)


def test_no_choice_is_above_it() -> None:
    chance = np.random.default_rng(0)
    for _ in range(5):
        counts = chance.integers(0, 20, (8, 2, 5)).astype(np.uint32)
        given = purse(chance.integers(5, 15, 8).tolist(), 40)
        best = max(
            worst_fed(counts[list(rows)].sum(axis=0).astype(np.int64), 0.2)
            for size in range(1, 9)
            for rows in combinations(range(8), size)
            if given.tokens[list(rows)].sum() <= given.budget
        )
        bound = ceiling(counts, given, 0.2)
        assert best <= bound + 1e-9
        assert bound <= 2 * best


def test_a_quota_lowers_it() -> None:
    counts = np.array([[[10, 10]], [[1, 1]]] * 3, dtype=np.uint32)
    free = purse([10] * 6, 30, [0, 1] * 3, [30, 30])
    bound_to = purse([10] * 6, 30, [0, 1] * 3, [10, 20])
    assert ceiling(counts, free, 1.0) == pytest.approx(30)
    assert ceiling(counts, bound_to, 1.0) == pytest.approx(21)  # 10 + 10 of a row's slack, 10 left

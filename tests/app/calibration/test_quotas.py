from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.calibration.quotas import by_weight, equally

totals = st.integers(0, 10**9)


def test_the_largest_remainders_get_what_does_not_divide() -> None:
    assert by_weight(10, [1, 1, 1]) == [4, 3, 3]
    assert by_weight(100, [55, 20, 25]) == [55, 20, 25]
    assert by_weight(7, [0.5, 0.3, 0.2]) == [4, 2, 1]  # 3.5, 2.1, 1.4


@given(totals, st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=50))
def test_parts_by_weight_sum_to_the_total(total: int, weights: list[float]) -> None:
    parts = by_weight(total, weights)
    assert sum(parts) == total
    exact = [total * weight / sum(weights) for weight in weights]
    for part, share in zip(parts, exact, strict=True):
        assert abs(part - share) <= 1 + 1e-6 * share


def test_what_a_small_vessel_cannot_hold_goes_to_the_others() -> None:
    assert equally(90, np.array([100, 10, 100])).tolist() == [40, 10, 40]
    assert equally(91, np.array([100, 10, 100])).tolist() == [41, 10, 40]
    assert equally(5, np.array([0, 3, 0])).tolist() == [0, 3, 0]
    assert equally(5, np.array([], dtype=np.int64)).tolist() == []


@given(totals, st.lists(st.integers(0, 10**6), max_size=50))
def test_equal_parts_are_level_and_exact(total: int, capacities: list[int]) -> None:
    available = np.array(capacities, dtype=np.int64)
    parts = equally(total, available)
    assert parts.sum() == min(total, available.sum())
    assert (parts <= available).all()
    if len(parts):  # whoever got less than the most, less one token, is full
        assert (parts[parts < parts.max() - 1] == available[parts < parts.max() - 1]).all()

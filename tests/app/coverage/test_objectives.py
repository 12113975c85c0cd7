from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from app.coverage.objectives import ActivationSpread, ExpertFloors, Objective, clipped

COUNTS = nps.arrays(np.uint16, (6, 5), elements=st.integers(0, 40))
ORDERS = st.permutations(range(6))


def value_of(counts: np.ndarray, rows: list[int], floor: int) -> float:
    """The objective written out: the sum of 1 - (1 + 16 t / floor)⁻³ over cells."""
    fed = np.minimum(counts[rows].sum(axis=0), floor) if rows else np.zeros(counts.shape[1])
    return float((1 - (1 + 16 * fed / floor) ** -3).sum())


@given(COUNTS, ORDERS, st.integers(1, 100))
def test_a_gain_is_the_difference_of_the_objective(counts, order, floor: int) -> None:
    objective = ExpertFloors(clipped(counts, floor), floor)
    rows: list[int] = []
    for row in order:
        told = objective.gains(np.array([row]))[0]
        expected = value_of(counts, [*rows, row], floor) - value_of(counts, rows, floor)
        assert told == pytest.approx(expected, abs=1e-4)
        objective.take(row)
        rows.append(row)


def spread(counts: np.ndarray) -> Objective:
    return ActivationSpread(counts.astype(np.float32))


def floors(counts: np.ndarray) -> Objective:
    return ExpertFloors(clipped(counts, 30), 30)


@pytest.mark.parametrize("objective_of", [spread, floors])
@given(counts=COUNTS, order=ORDERS)
def test_gains_are_never_negative_and_only_fall(objective_of, counts, order) -> None:
    objective = objective_of(counts)
    everyone = np.arange(6)
    before = objective.gains(everyone)
    for row in order:
        assert (before >= 0).all()
        objective.take(row)
        now = objective.gains(everyone)
        assert (now <= before + 1e-4).all()
        before = now


def test_an_expert_that_has_its_floor_is_worth_nothing_more() -> None:
    counts = np.array([[50, 0], [50, 0], [0, 3]], dtype=np.uint16)
    objective = ExpertFloors(clipped(counts, 20), 20)
    objective.take(0)
    assert objective.gains(np.array([1, 2])).tolist() == [0, pytest.approx(1 - 3.4**-3)]


def test_the_hungrier_expert_comes_first() -> None:
    counts = np.array([[8, 0], [0, 8], [1, 8]], dtype=np.uint16)
    objective = ExpertFloors(clipped(counts, 64), 64)
    objective.take(0)
    gains = objective.gains(np.array([0, 1]))
    assert gains[1] > 4 * gains[0]


def test_columns_are_dropped_without_changing_a_gain() -> None:
    chance = np.random.default_rng(3)
    counts = chance.poisson(np.linspace(0.1, 30, 400), (300, 400)).astype(np.uint16)
    lean = ExpertFloors(clipped(counts, 60), 60)
    rows: list[int] = []
    for row in range(0, 40):
        lean.take(row)
        rows.append(row)
    expected = [value_of(counts, [*rows, row], 60) - value_of(counts, rows, 60)
                for row in range(40, 60)]  # fmt: skip
    assert lean.gains(np.arange(40, 60)) == pytest.approx(expected, abs=1e-3)
    assert lean._counts.shape[1] < 400


@pytest.mark.parametrize(
    ("floor", "dtype"), [(9, np.uint8), (255, np.uint8), (256, np.uint16), (10**6, np.uint16)]
)
def test_clipped_counts_take_the_smallest_type(floor: int, dtype: type) -> None:
    counts = np.array([[[0, 5], [300, 7]]], dtype=np.uint32)
    found = clipped(counts, floor)
    assert found.dtype == dtype
    assert found.tolist() == [[0, 5, min(300, floor), 7]]


def test_rows_apart_are_worth_more_than_rows_alike() -> None:
    vectors = np.array([[1, 0], [1, 0.01], [0, 1], [0.01, 1]], dtype=np.float32)
    objective = ActivationSpread(vectors)
    objective.take(0)
    gains = objective.gains(np.array([1, 2]))
    assert gains[1] > 10 * gains[0]


def test_many_dimensions_are_projected_with_their_neighbours_kept() -> None:
    chance = np.random.default_rng(0)
    centres = chance.standard_normal((3, 2000))
    vectors = np.repeat(centres, 4, axis=0) + 0.1 * chance.standard_normal((12, 2000))
    objective = ActivationSpread(vectors.astype(np.float32))
    objective.take(0)
    gains = objective.gains(np.arange(12))
    assert gains[:4].max() < gains[4:].min()

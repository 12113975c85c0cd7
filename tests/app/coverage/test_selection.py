from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.coverage import selection
from app.coverage.objectives import ActivationSpread, ExpertFloors, clipped
from app.coverage.selection import Choice, Purse, choose, random_choice


def pool(rows: int = 60, cells: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Counts and lengths of rows that feed cells unevenly, half of them hardly at all."""
    chance = np.random.default_rng(seed)
    rate = np.where(np.arange(cells) < cells // 2, 4.0, 0.15) * chance.gamma(0.5, 2, (rows, cells))
    counts = chance.poisson(rate).astype(np.uint16)
    return counts, chance.integers(5, 40, rows)


def purse_of(tokens: np.ndarray, budget: int, groups: int = 1) -> Purse:
    return Purse(
        tokens=tokens.astype(np.int64),
        groups=np.arange(len(tokens)) % groups,
        quotas=np.full(groups, budget // groups, dtype=np.int64),
        slices=np.arange(groups) // 2,
        budget=budget,
    )


def plain_greedy(counts: np.ndarray, purse: Purse, floor: int) -> list[int]:
    """Every row looked at in every turn, hard quotas only, while something is gained."""
    objective = ExpertFloors(clipped(counts, floor), floor)
    left, quotas, chosen = purse.budget, purse.quotas.copy(), []
    while True:
        rows = [
            row for row in range(len(counts)) if row not in chosen
            and purse.tokens[row] <= min(left, quotas[purse.groups[row]])
        ]  # fmt: skip
        if not rows:
            return chosen
        gains = objective.gains(np.array(rows)) / purse.tokens[rows]
        if gains.max() <= 0:
            return chosen
        row = rows[int(gains.argmax())]
        objective.take(row)
        chosen.append(row)
        left -= purse.tokens[row]
        quotas[purse.groups[row]] -= purse.tokens[row]


@given(st.integers(0, 30), st.integers(1, 4), st.sampled_from([3, 20, 200]))
def test_lazy_greedy_chooses_what_plain_greedy_does(seed: int, groups: int, floor: int) -> None:
    counts, tokens = pool(seed=seed)
    purse = purse_of(tokens, 400, groups)
    expected = plain_greedy(counts, purse, floor)
    found = choose(ExpertFloors(clipped(counts, floor), floor), purse, np.arange(60))
    assert found.rows[: len(expected)].tolist() == expected


def spent(choice: Choice, purse: Purse) -> np.ndarray:
    rows = choice.rows
    return np.bincount(purse.groups[rows], purse.tokens[rows], len(purse.quotas))


@given(st.integers(0, 30), st.integers(1, 6), st.integers(50, 900))
def test_budget_and_quotas_hold(seed: int, groups: int, budget: int) -> None:
    counts, tokens = pool(seed=seed)
    purse = purse_of(tokens, budget, groups)
    order = np.random.default_rng(seed).permutation(60)
    for found in (
        choose(ExpertFloors(clipped(counts, 30), 30), purse, order),
        choose(ActivationSpread(counts.astype(np.float32)), purse, order),
        random_choice(purse, order),
    ):
        assert len(set(found.rows.tolist())) == len(found.rows)
        assert purse.tokens[found.rows].sum() <= budget
        # a quota is passed by less than a row
        assert (spent(found, purse) < purse.quotas + 40).all()


def slice_by_slice(purse: Purse, found: Choice) -> tuple[np.ndarray, np.ndarray]:
    """Tokens spent on each slice, and what its groups' quotas come to."""
    return (
        np.bincount(purse.slices, spent(found, purse)),
        np.bincount(purse.slices, purse.quotas),
    )


@given(st.integers(0, 30))
def test_slices_keep_their_share_where_rows_are_longer_than_the_quotas(seed: int) -> None:
    """Twenty groups of 30 tokens in the one slice and two of 300 in the other, rows of 20 to 60."""
    chance = np.random.default_rng(seed)
    tokens, groups = chance.integers(20, 60, 400), np.arange(400) % 22
    counts = chance.poisson(chance.gamma(0.5, 4, (400, 24))).astype(np.uint16)
    purse = Purse(
        tokens=tokens.astype(np.int64),
        groups=groups,
        quotas=np.where(np.arange(22) < 20, 30, 300),
        slices=(np.arange(22) >= 20).astype(np.intp),
        budget=1200,
    )
    for found in (
        choose(ExpertFloors(clipped(counts, 300), 300), purse, np.arange(400)),
        random_choice(purse, np.arange(400)),
    ):
        got, wanted = slice_by_slice(purse, found)
        assert (np.abs(got - wanted) < 60).all()
        assert (spent(found, purse)[:20] > 0).sum() >= 18  # nearly every group has its row


def test_rows_of_no_group_are_never_chosen() -> None:
    counts, tokens = pool()
    purse = purse_of(tokens, 10_000)
    purse.groups[::2] = -1
    found = choose(ExpertFloors(clipped(counts, 30), 30), purse, np.arange(60))
    assert set(found.rows.tolist()) == set(range(1, 60, 2))


def test_gains_fall_and_what_only_fills_has_none() -> None:
    counts, _ = pool()
    found = choose(
        ExpertFloors(clipped(counts, 2), 2), purse_of(np.full(60, 10), 500), np.arange(60)
    )
    some = found.gains[found.gains > 0]
    assert (np.diff(some) <= 1e-6).all()
    assert 0 < len(some) < len(found.rows) == 50
    assert (found.gains[len(some) :] == 0).all()


def test_the_rest_of_the_budget_is_filled_in_the_order_given() -> None:
    counts = np.zeros((6, 2), dtype=np.uint16)
    order = np.array([4, 2, 0, 1, 3, 5])
    found = choose(ExpertFloors(clipped(counts, 5), 5), purse_of(np.full(6, 10), 30), order)
    assert found.rows.tolist() == random_choice(purse_of(np.full(6, 10), 30), order).rows.tolist()
    assert found.rows.tolist() == [4, 2, 0]


def worst(counts: np.ndarray, found: Choice) -> float:
    return float(np.sort(counts[found.rows].sum(axis=0))[:4].mean())


@pytest.mark.parametrize("sampled", [False, True])
def test_the_worst_fed_get_more_than_at_random(
    sampled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sampled:
        monkeypatch.setattr(selection, "EXACT_WORK", 0)
    counts, tokens = pool(rows=800)
    purse = purse_of(tokens, 1500, 3)
    order = np.random.default_rng(1).permutation(800)
    chosen = choose(ExpertFloors(clipped(counts, 500), 500), purse, order)
    assert worst(counts, chosen) > 2 * worst(counts, random_choice(purse, order))
    again = choose(ExpertFloors(clipped(counts, 500), 500), purse, order)
    assert chosen.rows.tolist() == again.rows.tolist()


def test_few_rows_are_looked_at_again() -> None:
    counts, tokens = pool(rows=400)
    looks = 0

    class Counting(ExpertFloors):
        def gains(self, rows):
            nonlocal looks
            looks += len(rows)
            return super().gains(rows)

    found = choose(Counting(clipped(counts, 500), 500), purse_of(tokens, 2000), np.arange(400))
    assert looks < 0.5 * 400 * len(found.rows)

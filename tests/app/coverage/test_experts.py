from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from app.coverage.comparison import ComparisonQuery, difference_rows, moved
from app.coverage.experts import (
    companions,
    feeding_rows,
    feedings,
    load_of,
    place_of,
    require_same_model,
)
from app.coverage.profile import ProfileRefused
from app.errors import NotFound
from tests.app.coverage.profiles import dense, large, small


def test_an_experts_load() -> None:
    load = load_of(small(), 1, 3)
    assert (load.tokens, load.rank, load.mass) == (7, 3, 3.5)
    assert load.share == 7 / 32
    assert load.to_mean == 7 / 8


def test_an_expert_that_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFound, match="experts 0 to 3 in layers 1 to 3"):
        place_of(small(), 2, 0)
    with pytest.raises(NotFound, match="no expert 4 in layer 1"):
        place_of(small(), 1, 4)


def test_who_feeds_an_expert_in_tokens_shares_and_of_a_thousand() -> None:
    rust, go = feedings(small(), 1, 0, "programming_language")
    assert (rust.value, rust.tokens, rust.share) == ("Rust", 5, 0.5)
    assert rust.rate == pytest.approx(1000 * 5 / 6)
    assert (go.value, go.tokens, go.rate) == ("Go", 4, 1000)


def test_rows_that_feed_an_expert_most_and_those_of_another_set() -> None:
    rows = feeding_rows(small(), 1, 1, top=5)
    assert [(row.row_id, row.tokens, row.of) for row in rows] == [("a", 5, 6), ("c", 5, 6)]
    others = feeding_rows(small(), 1, 1, top=5, but=np.array(["a"]))
    assert [row.row_id for row in others] == ["c"]


def test_experts_chosen_for_the_same_tokens() -> None:
    # four tokens, top-2 of 4: {0,1} {0,1} {0,2} {2,3}
    both = [[3, 2, 1, 0], [2, 2, 0, 0], [1, 0, 2, 1], [0, 0, 1, 1]]
    profile = dataclasses.replace(small(), together=np.array([both, both], dtype=np.uint32))
    first, second = companions(profile, 1, 0, top=5) or []
    assert (first.expert, first.tokens, first.share) == (1, 2, 2 / 3)
    # one more expert a token, and of the five tokens of the others two are 1's and two are 2's
    assert first.lift == pytest.approx((2 / 3) / (2 / 5))
    assert (second.expert, second.lift) == (2, pytest.approx((1 / 3) / (2 / 5)))
    assert companions(small(), 1, 0, top=5) is None


def test_experts_that_meet_by_chance_alone_have_a_lift_of_one() -> None:
    # every pair of four experts once: six tokens, three an expert
    both = np.ones((4, 4), dtype=np.uint32) + 2 * np.eye(4, dtype=np.uint32)
    profile = dataclasses.replace(small(), together=np.array([both, both]))
    found = companions(profile, 1, 0, top=5) or []
    assert [(one.expert, one.lift) for one in found] == [(1, 1.0), (2, 1.0), (3, 1.0)]


def test_profiles_of_different_models_are_refused() -> None:
    with pytest.raises(ProfileRefused, match="A has 2 layers of 4 experts, top-2, B has 5 layers"):
        require_same_model(small(), large(5, 8), ("A", "B"))
    one, other = (dataclasses.replace(small(), model=name) for name in ("x", "y"))
    with pytest.raises(ProfileRefused, match="other weights"):
        require_same_model(one, other, ("A", "B"))
    require_same_model(small(), dataclasses.replace(small(), model="x"), ("A", "B"))


def test_differences_are_of_shares_and_sorted_by_them() -> None:
    code, whole = small().where("domain", "code"), small()
    rows = difference_rows(code, whole, ComparisonQuery())
    assert rows[0].difference == max(row.difference for row in rows)
    first = next(row for row in rows if (row.layer, row.expert) == (1, 0))
    assert (first.tokens, first.other_tokens) == (9, 10)
    assert first.difference == pytest.approx(10 / 32 - 9 / 20)
    by_layer = difference_rows(code, whole, ComparisonQuery(sort="layer", descending=False))
    assert [(row.layer, row.expert) for row in by_layer[:5]] == [
        (1, 0), (1, 1), (1, 2), (1, 3), (3, 0),
    ]  # fmt: skip


def test_how_much_moves_is_half_the_sum_of_differences() -> None:
    assert moved(small(), small()) == 0
    code, whole = small().where("domain", "code"), small()
    layers = [
        abs(10 / 32 - 9 / 20) + abs(10 / 32 - 5 / 20) + 5 / 32 + abs(7 / 32 - 6 / 20),
        abs(17 / 32 - 10 / 20) + abs(15 / 32 - 10 / 20),
    ]
    assert moved(code, whole) == pytest.approx(sum(layers) / 4)
    assert moved(dense(), dense()) == 0

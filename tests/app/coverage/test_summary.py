from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.coverage.summary import (
    CSV_HEADER,
    Floor,
    balance,
    concerns,
    dead,
    entropy,
    expert_columns,
    experts_reached,
    feeders,
    floors,
    gini,
    ranks,
    shares,
    starved,
    summarise,
)
from tests.app.coverage.profiles import COUNTS, dense, small

loads = st.lists(st.integers(0, 10**6), min_size=2, max_size=64).map(np.array)


def test_starved_by_tokens_worst_first() -> None:
    found = starved(small(), Floor(min_tokens=6, min_share=0))
    assert [(one.layer, one.expert, one.tokens, one.missing) for one in found] == [
        (3, 2, 0, 6),
        (3, 3, 0, 6),
        (1, 2, 5, 1),
    ]


def test_starved_by_share_of_the_layers_mean() -> None:
    # the mean of each layer is 32 / 4 = 8 tokens; 90 % of it is 7.2, so 8 are needed
    found = starved(small(), Floor(min_tokens=0, min_share=0.9))
    assert [(one.layer, one.expert, one.missing) for one in found] == [
        (3, 2, 8),
        (3, 3, 8),
        (1, 2, 3),
        (1, 3, 1),
    ]


def test_dead_and_reached_experts() -> None:
    assert dead(small()) == [(3, 2), (3, 3)]
    assert "2 experts are reached by no token of the set: layer 3: 2, 3." in concerns(small())
    assert any("90 % or more of" in concern for concern in concerns(small()))
    assert experts_reached(small()) == (6, 8)


def test_balance_by_hand() -> None:
    even, _ = balance(small(), Floor(min_tokens=6, min_share=0))
    assert (even.layer, even.tokens, even.dead, even.starved) == (1, 32, 0, 1)
    assert (even.smallest, even.largest) == (5, 10)
    share = [10 / 32, 10 / 32, 5 / 32, 7 / 32]
    assert even.entropy == pytest.approx(-sum(p * math.log(p) for p in share) / math.log(4))
    differences = sum(abs(a - b) for a in (10, 10, 5, 7) for b in (10, 10, 5, 7))
    assert even.gini == pytest.approx(differences / (2 * 4 * 4 * 8))


def test_the_ends_of_entropy_and_gini() -> None:
    even, one, none = np.array([3, 3, 3, 3]), np.array([0, 9, 0, 0]), np.zeros(4, dtype=np.int64)
    assert (entropy(even), gini(even)) == (pytest.approx(1), pytest.approx(0))
    assert (entropy(one), gini(one)) == (0.0, pytest.approx(3 / 4))
    assert (entropy(none), gini(none)) == (None, None)


@given(loads)
def test_entropy_and_gini_do_not_depend_on_order_or_scale(load: np.ndarray) -> None:
    if not load.sum():
        return
    same = np.flip(load) * 7
    assert entropy(same) == pytest.approx(entropy(load))
    assert gini(same) == pytest.approx(gini(load))
    assert 0 <= entropy(load) <= 1 + 1e-9
    assert -1e-9 <= gini(load) < 1


def test_ranks_break_ties_by_expert() -> None:
    assert ranks(small().layer_counts).tolist() == [[1, 2, 4, 3], [1, 2, 3, 4]]


def test_shares_of_a_layer_sum_to_one() -> None:
    assert shares(small().layer_counts)[0].tolist() == [10 / 32, 10 / 32, 5 / 32, 7 / 32]
    assert shares(np.zeros((1, 4), dtype=np.int64)).tolist() == [[0, 0, 0, 0]]


def test_the_values_that_feed_an_expert_most() -> None:
    fed = feeders(small(), layer=1, expert=0, column="programming_language")
    assert [(one.value, one.tokens, one.share) for one in fed] == [("Rust", 5, 0.5), ("Go", 4, 0.4)]
    assert feeders(small(), layer=3, expert=3, column="domain") == []
    assert len(feeders(small(), layer=1, expert=0, column="domain", top=1)) == 1


def test_concerns_count_what_they_name() -> None:
    said = concerns(small(), Floor(min_tokens=6, min_share=0))
    assert said[:2] == [
        "2 experts are reached by no token of the set: layer 3: 2, 3.",
        "1 more expert is starved: fewer than 6 tokens, or less than 0 % of the layer's mean. "
        "13 routed tokens are missing in all.",
    ]
    fed = dataclasses.replace(small(), counts=small().counts + 1)
    assert concerns(fed, Floor(min_tokens=6, min_share=0))[0].startswith("2 experts are starved")


def test_an_expert_with_exactly_its_share_is_not_starved() -> None:
    # 28 % of 2,425 are 679 tokens, which floating point makes 679.0000000000001
    load = np.array([[679, 9_021, 0, 0]])
    assert floors(load, Floor(min_tokens=0, min_share=0.28)).tolist() == [679]
    assert floors(load, Floor(min_tokens=0, min_share=0.2801)).tolist() == [680]


def test_a_floor_is_said_as_it_was_set() -> None:
    said = concerns(small(), Floor(min_tokens=6, min_share=0.005))
    assert "less than 0.5 % of the layer's mean" in said[1]


def test_the_document_has_the_keys_scripts_read() -> None:
    document = json.loads(json.dumps(summarise(small(), floor=Floor(6, 0))))
    assert (document["tokens"], document["top_k"]) == (16, 2)
    assert [(one["layer"], one["experts"]) for one in document["layers"]] == [
        (1, [10, 10, 5, 7]),
        (3, [17, 15, 0, 0]),
    ]
    assert document["starved"][2] == {"layer": 1, "expert": 2, "tokens": 5, "missing": 1}
    assert (document["experts_reached"], document["experts_total"]) == (6, 8)
    assert "slices" not in document


def test_slices_hold_the_same_for_each_value() -> None:
    document = summarise(small(), by="domain")
    assert set(document["slices"]) == {"code", "law"}
    law = document["slices"]["law"]
    assert law["tokens"] == 6
    assert [one["experts"] for one in law["layers"]] == COUNTS[2]
    parts = np.array(
        [[one["experts"] for one in part["layers"]] for part in document["slices"].values()]
    )
    assert parts.sum(axis=0).tolist() == [one["experts"] for one in document["layers"]]


def test_a_set_without_a_facet_says_so() -> None:
    profile = small().where("domain", "code")
    document = summarise(profile, by="spoken_language")
    assert (document["slices"], document["note"]) == ({}, "No row has a spoken language.")


def test_a_dense_model_is_said_to_be_one() -> None:
    document = summarise(dense(), by="domain")
    assert (document["layers"], document["starved"], document["experts_total"]) == ([], [], 0)
    assert document["note"] == "The model is dense: it has no experts to reach."
    assert document["tokens"] == 16


def test_the_table_has_a_row_for_every_expert() -> None:
    columns = expert_columns(small(), Floor(6, 0))
    assert tuple(columns) == CSV_HEADER
    rows = [
        dict(zip(columns, row, strict=True))
        for row in zip(*(column.tolist() for column in columns.values()), strict=True)
    ]
    assert len(rows) == 8
    assert rows[2] == {
        "layer": 1,
        "expert": 2,
        "tokens": 5,
        "share": 5 / 32,
        "mass": 2.5,
        "rank": 4,
        "starved": True,
    }
    assert sum(row["tokens"] for row in rows) == 64

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from app.calibration.pool import Candidate, FacetColumn, Pool, row_hashes, sampling_keys
from app.calibration.spec import Slice
from app.facets import Facet

ROWS = [
    Candidate("c", 30, spoken_language="de"),
    Candidate("a", 10, programming_language="Rust", domain="code"),
    Candidate("b", 20, programming_language="Go", domain="code"),
]


def test_a_pool_is_sorted_by_id_whatever_the_order_of_its_rows() -> None:
    pool, other = Pool.of(ROWS), Pool.of(reversed(ROWS))
    assert pool.row_ids.tolist() == other.row_ids.tolist() == ["a", "b", "c"]
    assert pool.tokens.tolist() == other.tokens.tolist() == [10, 20, 30]


def test_a_row_id_stands_once() -> None:
    pool = Pool.of([*ROWS, Candidate("a", 99)])
    assert pool.row_ids.tolist() == ["a", "b", "c"]
    assert pool.tokens[0] == 10


def test_a_slice_matches_rows_that_have_a_listed_value_in_every_facet() -> None:
    pool = Pool.of(ROWS)
    part = Slice(
        name="s",
        weight=1,
        facets={Facet.PROGRAMMING_LANGUAGE: ("Rust", "Pony"), Facet.DOMAIN: ("code",)},
    )
    assert pool.matching(part).tolist() == [True, False, False]


def test_balancing_takes_only_rows_that_have_a_value() -> None:
    part = Slice(name="s", weight=1, balance=Facet.PROGRAMMING_LANGUAGE)
    assert Pool.of(ROWS).matching(part).tolist() == [True, True, False]


def test_sums_and_present_values_of_a_column() -> None:
    column = FacetColumn.of(["Go", None, "Rust", "Go"])
    amounts = np.array([1, 10, 100, 1000])
    assert column.sums(amounts, np.arange(4)) == {"Go": 1001, "Rust": 100}
    assert column.sums(amounts, np.array([1, 2])) == {"Go": 0, "Rust": 100}
    assert column.present(np.array([0, 1])) == ["Go"]


def test_sampling_keys_are_the_same_in_a_process_with_another_hash_seed() -> None:
    code = (
        "from app.calibration.pool import *;"
        "print(sampling_keys(row_hashes(['a', 'b']), 7).tolist())"
    )
    here = sampling_keys(row_hashes(["a", "b"]), 7).tolist()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.getcwd()}
        there = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert there.stdout.strip() == str(here)


def test_sampling_is_random_and_not_the_first_rows() -> None:
    hashes = row_hashes(f"{number:05}" for number in range(2000))
    places = np.argsort(sampling_keys(hashes, 0))[:500]
    assert abs(places.mean() - 1000) < 80  # 3 standard errors of a uniform sample
    overlap = len(set(places) & set(np.argsort(sampling_keys(hashes, 1))[:500]))
    assert 80 < overlap < 170  # another seed, another sample: 125 of 500 by chance


def test_a_pool_is_drawn_once() -> None:
    pool = Pool.of([Candidate(f"{number:03}", number + 1) for number in range(200)])
    drawn = pool.in_random_order(7)
    assert drawn.in_random_order(7) is drawn
    assert drawn.row_ids.tolist() != pool.row_ids.tolist()
    assert dict(zip(drawn.row_ids.tolist(), drawn.tokens.tolist(), strict=True)) == dict(
        zip(pool.row_ids.tolist(), pool.tokens.tolist(), strict=True)
    )
    with pytest.raises(ValueError, match="drawn once"):
        drawn.in_random_order(8)

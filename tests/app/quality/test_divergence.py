"""Figures of kept rows, against cases worked out by hand."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from app.errors import CompositionRefused, NotFound
from app.quality.divergence import evaluation_of, few_rows, mean_with_interval, router_drift
from app.quality.evaluated_rows import EvaluatedRows, RowsRefused
from tests.app.quality.evaluated import rows_of


def test_a_mean_weighs_tokens_and_its_interval_is_seeded() -> None:
    rows = rows_of(kl=[1.0, 30.0, 0.0], tokens=[1, 10, 0])
    mean, low, high = mean_with_interval(rows, range(3), seed=3)
    assert mean == pytest.approx(31 / 11)
    assert (low, high) == (1.0, 3.0)
    assert mean_with_interval(rows, range(3), seed=3) == (mean, low, high)


def test_slices_are_those_with_two_measured_rows() -> None:
    rows = rows_of(
        kl=[1.0, 2.0, 3.0, 4.0, 0.0], tokens=[10, 10, 10, 10, 0],
        domain=["code", "code", "law", "", "law"],
    )  # fmt: skip
    found = evaluation_of(rows).slices
    assert [(part.facet, part.value, part.rows, part.tokens) for part in found] == [
        ("domain", "code", 2, 20)
    ]
    assert found[0].kl_mean == pytest.approx(0.15)


def test_slices_of_few_rows_are_named_as_such() -> None:
    few = ["law"] * 19 + ["code"] * 20
    rows = rows_of(kl=[1.0] * 39, tokens=[10] * 39, domain=few)
    assert few_rows(evaluation_of(rows).slices).startswith("1 slice has fewer than 20 rows:")
    enough = rows_of(kl=[1.0] * 20, tokens=[10] * 20, domain=["code"] * 20)
    assert few_rows(evaluation_of(enough).slices) == ""


def test_intervals_of_ten_rows_are_too_narrow() -> None:
    held = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        tokens = random.integers(100, 500, 10)
        kl = tokens * random.gamma(3, 0.001, 10)
        rows = rows_of(kl=kl.tolist(), tokens=tokens.tolist())
        _, low, high = mean_with_interval(rows, range(10), seed=0)
        held += low <= 0.003 <= high
    assert 0.8 < held / 200 < 0.93


def test_router_drift_is_a_share_and_a_mean_of_all_tokens() -> None:
    rows = rows_of(kl=[1.0, 1.0], tokens=[9, 29])
    rows.routed[:] = [10, 30]
    rows.router_same[:] = [[10, 5], [20, 15]]
    rows.router_kl[:] = [[1.0, np.nan], [3.0, np.nan]]
    first, second = router_drift(rows)
    assert (first.share, first.kl) == (0.75, 0.1)
    assert (second.share, second.kl) == (0.5, None)


def test_nothing_predicted_is_refused() -> None:
    with pytest.raises(CompositionRefused, match="two tokens"):
        evaluation_of(rows_of(kl=[0.0], tokens=[0]))


def test_rows_are_read_back_as_they_were(tmp_path: Path) -> None:
    rows = rows_of(kl=[1.5, 2.5], tokens=[3, 4], domain=["law", "數學"])
    stream = io.BytesIO()
    rows.save(stream)
    (tmp_path / "evaluation.npz").write_bytes(stream.getvalue())
    found = EvaluatedRows.load(tmp_path / "evaluation.npz")
    assert list(found.facets["domain"]) == ["law", "數學"]
    assert evaluation_of(found) == evaluation_of(rows)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "evaluation.npz"
    with pytest.raises(NotFound, match="evaluation again"):
        EvaluatedRows.load(file)
    file.write_bytes(b"PK nothing")
    with pytest.raises(RowsRefused, match="not a file of evaluated rows"):
        EvaluatedRows.load(file)
    np.savez(file.open("wb"), kl=np.zeros(3))
    with pytest.raises(RowsRefused, match="not a file of evaluated rows"):
        EvaluatedRows.load(file)

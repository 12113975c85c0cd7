"""Live totals: what a composition would give."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.calibration.building import build_set
from app.calibration.index import open_index
from app.calibration.spec import SetSpec, Slice
from app.calibration.starter import software_engineer
from app.calibration.totals import totals
from app.facets import Facet
from app.sources.rows import rows_files
from tests.app.calibration.large_index import fifty_slices, large_index


def test_the_prediction_is_what_a_build_gives(
    model_dir: Path, index_dir: Path, tmp_path: Path
) -> None:
    spec = software_engineer()
    index = open_index(rows_files(spec.sources), model_dir, index_dir)
    predicted = totals(spec, index)
    built = build_set(
        spec, tokenizer_dir=model_dir, sets_dir=tmp_path / "sets", index_dir=index_dir
    )
    assert (predicted.rows, predicted.tokens) == (built.rows, built.tokens)
    assert predicted.refusals == []
    for facet in Facet:
        rows = {value: one.rows for value, one in predicted.facets[facet].items() if one.rows}
        assert rows == {value: amount.rows for value, amount in built.facets[facet].items()}
    assert sum(part.tokens for part in predicted.slices) == predicted.tokens
    assert sum(part.share for part in predicted.slices) == pytest.approx(1)
    assert predicted.facets[Facet.PROGRAMMING_LANGUAGE]["Pony"].available_rows == 0
    assert "Pony" in {short.value for short in predicted.shortfalls}


def test_available_counts_the_whole_pool(model_dir: Path, index_dir: Path) -> None:
    part = Slice(name="rust", weight=1, facets={Facet.PROGRAMMING_LANGUAGE: ("Rust",)})
    spec = SetSpec(name="t", slices=(part,), token_budget=2000)
    index = open_index(rows_files(spec.sources), model_dir, index_dir)
    pool = index.pool(spec)
    shown = totals(spec, index)
    assert shown.available_rows == len(pool)
    go = shown.facets[Facet.PROGRAMMING_LANGUAGE]["Go"]
    assert go.available_rows > 0
    assert (go.rows, go.tokens, go.share) == (0, 0, 0.0)
    rust = shown.facets[Facet.PROGRAMMING_LANGUAGE]["Rust"]
    assert (rust.available_rows, rust.available_tokens) == (
        shown.slices[0].available_rows,
        shown.slices[0].available_tokens,
    )
    assert rust.share == 1.0


def test_what_cannot_be_built_says_why(model_dir: Path, index_dir: Path) -> None:
    pony = Slice(name="pony", weight=1, facets={Facet.PROGRAMMING_LANGUAGE: ("Pony",)})
    rest = Slice(name="rest", weight=1)
    spec = SetSpec(name="t", slices=(pony, rest), token_budget=10**9)
    shown = totals(spec, open_index(rows_files(spec.sources), model_dir, index_dir))
    assert len(shown.refusals) == 2
    assert "Slice 'pony' matches no row" in shown.refusals[0]
    assert "1,000,000,000 tokens is more than" in shown.refusals[1]


def test_parts_add_up_over_fifty_slices_and_a_hundred_thousand_rows() -> None:
    shown = totals(fifty_slices(), large_index(100_000))
    assert shown.tokens > 1_490_000
    assert sum(part.rows for part in shown.slices) == shown.rows
    assert sum(part.tokens for part in shown.slices) == shown.tokens
    for facet in (Facet.SPOKEN_LANGUAGE, Facet.PROGRAMMING_LANGUAGE, Facet.DOMAIN):
        assert sum(one.available_rows for one in shown.facets[facet].values()) <= 100_000
    assert sum(one.tokens for one in shown.facets[Facet.DOMAIN].values()) == shown.tokens

"""The rows a checkpoint is judged on are never those it was calibrated on."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.calibration.composition import compose
from app.calibration.held_out import HELD_OUT_BUDGET, held_out_for
from app.calibration.index import CorpusIndex, open_index
from app.calibration.spec import SetSpec, Slice
from app.calibration.starter import software_engineer
from app.facets import Facet
from app.settings import ROOT
from app.sources.rows import rows_files
from app.sources.starter_corpus import split_of


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> CorpusIndex:
    cache: Path = tmp_path_factory.mktemp("index")
    return open_index(rows_files(software_engineer().sources), ROOT / "demo" / "model", cache)


def test_no_row_is_on_both_sides(index: CorpusIndex) -> None:
    spec = software_engineer()
    held_out = held_out_for(spec, index)
    assert held_out is not None
    chosen = set(compose(spec, index.pool(spec)).row_ids)
    judged = set(compose(held_out, index.pool(held_out)).row_ids)
    assert chosen
    assert judged
    assert not chosen & judged
    assert {split_of(row) for row in judged} == {"held_out"}
    assert held_out.token_budget <= HELD_OUT_BUDGET


def test_every_value_the_held_out_part_has_is_judged(index: CorpusIndex) -> None:
    held_out = held_out_for(software_engineer(), index)
    assert held_out is not None
    composition = compose(held_out, index.pool(held_out))
    without = {quota.value for quota in composition.quotas if not quota.rows}
    assert without == {quota.value for quota in composition.quotas if not quota.available}


def test_a_slice_without_held_out_rows_is_left_out(index: CorpusIndex) -> None:
    zephyr = Slice(name="Zephyr", weight=1, facets={Facet.PROGRAMMING_LANGUAGE: ("Zephyr",)})
    rust = Slice(name="Rust", weight=1, facets={Facet.PROGRAMMING_LANGUAGE: ("Rust",)})
    spec = SetSpec(name="two", slices=(zephyr, rust), token_budget=1000)
    held_out = held_out_for(spec, index)
    assert held_out is not None
    assert [part.name for part in held_out.slices] == ["Rust"]
    compose(held_out, index.pool(held_out))  # It can be built as it is.
    alone = SetSpec(name="one", slices=(zephyr,), token_budget=100)
    assert held_out_for(alone, index) is None


def test_nothing_is_judged_where_no_row_fits_the_budget(index: CorpusIndex) -> None:
    rust = Slice(name="Rust", weight=1, facets={Facet.PROGRAMMING_LANGUAGE: ("Rust",)})
    assert held_out_for(SetSpec(name="tiny", slices=(rust,), token_budget=1), index) is None


def test_slices_that_share_rows_are_counted_once(index: CorpusIndex) -> None:
    parts = tuple(
        Slice(name=name, weight=1, facets={Facet.PROGRAMMING_LANGUAGE: ("Nim",)}) for name in "ab"
    )
    spec = SetSpec(name="twice", slices=parts, token_budget=20_000)
    held_out = held_out_for(spec, index)
    assert held_out is not None
    compose(held_out, index.pool(held_out))

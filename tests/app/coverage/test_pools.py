from __future__ import annotations

from pathlib import Path

import pytest

from app.calibration.composition import preview
from app.calibration.index import CorpusIndex
from app.calibration.service import index_for
from app.calibration.spec import SetSpec, Slice
from app.coverage.pools import pool_of
from app.errors import CompositionRefused
from app.facets import Facet
from app.settings import Settings
from tests.seed import small_spec
from tests.seeded_model import write_model


@pytest.fixture
def index(settings: Settings, tmp_path: Path) -> CorpusIndex:
    return index_for(settings, small_spec(), write_model(tmp_path / "model"))


def tokens_of(spec: SetSpec, index: CorpusIndex) -> int:
    return preview(spec, index.pool(spec)).tokens


def test_a_pool_has_many_times_the_tokens_in_the_same_slices(index: CorpusIndex) -> None:
    spec = small_spec().model_copy(update={"token_budget": 3000})
    pool = pool_of(spec, index, times=4)
    assert pool.token_budget == 12_000
    assert pool.slices == spec.slices
    assert pool.name == "Pool of Systems languages and German"
    assert tokens_of(pool, index) > 3 * tokens_of(spec, index)


def test_a_pool_is_no_larger_than_the_sources(index: CorpusIndex) -> None:
    spec = small_spec().model_copy(update={"token_budget": 3000})
    pool = pool_of(spec, index, times=1000)
    assert pool.token_budget is not None
    assert pool.token_budget < 1000 * 3000
    assert not preview(pool, index.pool(pool)).refusals


def test_fixed_slices_grow_and_named_rows_are_let_go(index: CorpusIndex) -> None:
    german = Slice(name="German", rows=5, facets={Facet.SPOKEN_LANGUAGE: ("de",)})
    rust = Slice(
        name="Rust",
        tokens=900,
        facets={Facet.PROGRAMMING_LANGUAGE: ("Rust",)},
        row_ids=tuple(index.row_ids[:3].tolist()),
    )
    spec = SetSpec(name="Fixed", slices=(german, rust), token_budget=None)
    pool = pool_of(spec, index, times=4)
    assert (pool.slices[0].rows, pool.slices[1].tokens) == (20, 3600)
    assert pool.slices[1].row_ids == ()
    assert pool.token_budget is None


def test_sources_with_hardly_more_than_the_set_are_refused(index: CorpusIndex) -> None:
    part = Slice(name="Everything", rows="all")
    spec = SetSpec(name="All there is", slices=(part,), token_budget=None)
    with pytest.raises(CompositionRefused, match="there is hardly anything to choose"):
        pool_of(spec, index)

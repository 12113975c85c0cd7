from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest

from app.calibration.building import build_set
from app.calibration.index import CorpusIndex, open_index
from app.calibration.pool import FacetColumn, row_hashes
from app.calibration.spec import SetSpec, Slice
from app.calibration.starter import software_engineer
from app.calibration.totals import totals
from app.facets import DOMAINS, PROGRAMMING_LANGUAGES, SPOKEN_LANGUAGES, Facet
from app.sources.rows import rows_files


@pytest.fixture(scope="module")
def index_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("index")


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


def test_fifty_slices_over_a_hundred_thousand_rows_take_a_tenth_of_a_second() -> None:
    index, spec = large_index(100_000), fifty_slices()
    totals(spec, index)
    seconds = []
    for _ in range(3):
        started = time.process_time()
        shown = totals(spec, index)
        seconds.append(time.process_time() - started)
    assert shown.rows > 1000
    # the goal is 0.1 s (bench/); twice that here, for machines that are busy with other tests
    assert min(seconds) < 0.2


def large_index(rows: int) -> CorpusIndex:
    chance = random.Random(1)
    row_ids = sorted(f"{chance.getrandbits(64):016x}" for _ in range(rows))
    code = [chance.random() < 0.5 for _ in row_ids]
    columns = {
        Facet.SPOKEN_LANGUAGE: [None if c else chance.choice([*SPOKEN_LANGUAGES]) for c in code],
        Facet.PROGRAMMING_LANGUAGE: [
            chance.choice(PROGRAMMING_LANGUAGES) if c else None for c in code
        ],
        Facet.DOMAIN: ["code" if c else chance.choice([*DOMAINS]) for c in code],
    }
    return CorpusIndex(
        row_ids=np.array(row_ids),
        hashes=row_hashes(row_ids),
        tokens=np.array([chance.randint(20, 900) for _ in row_ids]),
        sources=FacetColumn.of(["permissive"] * rows),
        splits=FacetColumn.of(["calibration"] * rows),
        facets={facet: FacetColumn.of(values) for facet, values in columns.items()},
    )


def fifty_slices() -> SetSpec:
    chance = random.Random(2)
    slices = []
    for number in range(25):
        languages = tuple(chance.sample(PROGRAMMING_LANGUAGES, 20))
        spoken = tuple(chance.sample([*SPOKEN_LANGUAGES], 5))
        slices += [
            Slice(
                name=f"code {number}",
                weight=number + 1,
                facets={Facet.PROGRAMMING_LANGUAGE: languages},
                balance=Facet.PROGRAMMING_LANGUAGE,
            ),
            Slice(
                name=f"text {number}",
                weight=number + 1,
                facets={Facet.SPOKEN_LANGUAGE: spoken},
                balance=Facet.DOMAIN,
            ),
        ]
    return SetSpec(name="fifty", slices=tuple(slices), token_budget=1_500_000)

from __future__ import annotations

from pathlib import Path

import pytest

from app.calibration.composition import Composition, compose
from app.calibration.index import open_index
from app.calibration.spec import SetSpec
from app.calibration.starter import (
    DOMAINS_IN_ENGLISH,
    OTHER_LANGUAGES,
    software_engineer,
)
from app.facets import PROGRAMMING_LANGUAGES, Facet
from app.sources.rows import rows_files


def composed(spec: SetSpec, model_dir: Path, index_dir: Path) -> Composition:
    return compose(spec, open_index(rows_files(spec.sources), model_dir, index_dir).pool(spec))


def fed(composition: Composition, facet: Facet) -> set[str]:
    return {quota.value for quota in composition.quotas if quota.facet is facet and quota.rows}


def test_every_language_the_corpus_has_is_fed_and_pony_is_named(
    model_dir: Path, index_dir: Path
) -> None:
    composition = composed(software_engineer(), model_dir, index_dir)
    assert fed(composition, Facet.PROGRAMMING_LANGUAGE) == set(PROGRAMMING_LANGUAGES) - {"Pony"}
    assert fed(composition, Facet.SPOKEN_LANGUAGE) == set(OTHER_LANGUAGES)
    assert fed(composition, Facet.DOMAIN) == set(DOMAINS_IN_ENGLISH)
    assert "Slice 'Code in 60 programming languages' has no rows in Pony." in composition.warnings
    assert 58_000 < composition.tokens <= 60_000


def test_shares_are_those_of_the_table(model_dir: Path, index_dir: Path) -> None:
    composition = composed(software_engineer(), model_dir, index_dir)
    shares = [part.tokens / composition.tokens for part in composition.slices]
    assert shares == pytest.approx([0.55, 0.20, 0.25], abs=0.01)

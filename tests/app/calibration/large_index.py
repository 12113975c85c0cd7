"""An index of many rows, and a composition of many slices: as large as the composer should bear."""

from __future__ import annotations

import random

import numpy as np

from app.calibration.index import CorpusIndex
from app.calibration.pool import FacetColumn, row_hashes
from app.calibration.spec import SetSpec, Slice
from app.facets import DOMAINS, PROGRAMMING_LANGUAGES, SPOKEN_LANGUAGES, Facet


def large_index(rows: int) -> CorpusIndex:
    """Rows half in spoken, half in programming languages, 20 to 900 tokens each."""
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
    """25 slices of code and 25 of text, each balanced."""
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

"""Live totals: what a composition would give, while a person works on it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from app.calibration.composition import Composition, SliceResult, Unit, preview
from app.calibration.index import CorpusIndex
from app.calibration.pool import FacetColumn
from app.calibration.spec import SetSpec
from app.facets import Facet


class Amount(BaseModel):
    """Rows and tokens available in the sources and predicted in the set; ``share`` is the part
    of the set's tokens, from 0 to 1."""

    available_rows: int
    available_tokens: int
    rows: int
    tokens: int
    share: float


class SliceAmount(Amount):
    """One slice; ``budget`` is the tokens it asks for, None where it counts rows, and
    ``asked_rows`` those rows, None where it counts tokens or takes every row. What is available
    to two slices is counted in both."""

    name: str
    budget: int | None
    asked_rows: int | None


class Shortfall(BaseModel):
    """A value of a balanced facet that cannot be filled, in ``unit``: a quota that fell short."""

    model_config = ConfigDict(from_attributes=True)

    slice: str
    facet: Facet
    value: str
    asked: int
    got: int
    available: int
    unit: Unit = "tokens"
    sentence: str


class Totals(Amount):
    """A composition's totals. ``budget`` is None where slices of a fixed size are all there is;
    ``refusals`` says why it cannot be built, empty when it can."""

    budget: int | None
    slices: list[SliceAmount]
    facets: dict[Facet, dict[str, Amount]]
    shortfalls: list[Shortfall]
    warnings: list[str]
    refusals: list[str]


def totals(spec: SetSpec, index: CorpusIndex) -> Totals:
    """What a set would be made of, from the index alone.

    The prediction is the composition itself, so it is exact. Nothing is refused: a composition
    that cannot be built says why in ``refusals``. Values nobody asked for are among the facets
    with what the sources have of them.
    """
    pool = index.pool(spec)
    composition = preview(spec, pool)
    return Totals(
        available_rows=len(pool),
        available_tokens=int(pool.tokens.sum()),
        rows=len(composition.rows),
        tokens=composition.tokens,
        share=1.0 if len(composition.rows) else 0.0,
        budget=spec.token_budget,
        slices=[_slice_amount(part, composition.tokens) for part in composition.slices],
        facets={facet: _facet_amounts(facet, composition) for facet in Facet},
        shortfalls=[Shortfall.model_validate(quota) for quota in composition.shortfalls],
        warnings=list(composition.warnings),
        refusals=list(composition.refusals),
    )


def _slice_amount(part: SliceResult, total: int) -> SliceAmount:
    return SliceAmount(
        name=part.name,
        budget=part.budget,
        asked_rows=part.asked_rows,
        available_rows=part.available_rows,
        available_tokens=part.available_tokens,
        rows=part.rows,
        tokens=part.tokens,
        share=part.tokens / total if total else 0.0,
    )


def _facet_amounts(facet: Facet, composition: Composition) -> dict[str, Amount]:
    """Amounts of every value the pool has, and zeros for those a balanced slice asks in vain."""
    column, pool = composition.pool.facets[facet], composition.pool
    available = _rows_and_tokens(column, pool.tokens)
    chosen = _rows_and_tokens(column.take(composition.rows), composition.lengths)
    asked = {quota.value for quota in composition.quotas if quota.facet is facet}
    nothing = (0, 0)
    return {
        value: Amount(
            available_rows=available.get(value, nothing)[0],
            available_tokens=available.get(value, nothing)[1],
            rows=chosen.get(value, nothing)[0],
            tokens=chosen.get(value, nothing)[1],
            share=chosen.get(value, nothing)[1] / max(composition.tokens, 1),
        )
        for value in sorted(available.keys() | asked)
    }


def _rows_and_tokens(column: FacetColumn, lengths: NDArray[np.int64]) -> dict[str, tuple[int, int]]:
    rows = np.arange(len(lengths))
    counts = column.sums(np.ones(len(lengths), dtype=np.int64), rows)
    tokens = column.sums(lengths, rows)
    return {value: (counts[value], tokens[value]) for value in column.values}

"""What the page about a job's coverage shows."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from app.coverage import service
from app.coverage.heatmap import Measure, Order, Scale
from app.coverage.profile import FACET_COLUMNS, Profile, label
from app.coverage.summary import (
    DEFAULT_FLOOR,
    Floor,
    balance,
    concerns,
    expert_columns,
    experts_reached,
    tokens_missing,
)
from app.facets import Facet, vocabulary
from app.jobs.service import get_job
from app.jobs.views import JobRow, job_row
from app.paging import page_within
from app.settings import Settings

PAGE_ROWS = 32
CHART_FIELDS = {*FACET_COLUMNS, "measure", "scale", "order"}


class Sort(StrEnum):
    """What the table of experts is sorted by."""

    LAYER = "layer"
    TOKENS = "tokens"
    SHARE = "share"


class CoverageQuery(BaseModel):
    """Which part of the set to look at, and how. An empty facet value asks for all rows."""

    # ``format`` and whatever else the page's address carries is somebody else's.
    model_config = ConfigDict(extra="ignore")

    spoken_language: Annotated[str, Field(max_length=200)] = ""
    programming_language: Annotated[str, Field(max_length=200)] = ""
    domain: Annotated[str, Field(max_length=200)] = ""
    source: Annotated[str, Field(max_length=200)] = ""
    slice: Annotated[str, Field(max_length=200)] = ""
    measure: Measure = "tokens"
    scale: Scale = "linear"
    order: Order = "expert"
    floor: Annotated[int, Field(ge=0, le=10**9)] = DEFAULT_FLOOR.min_tokens
    floor_percent: Annotated[float, Field(ge=0, le=100)] = 100 * DEFAULT_FLOOR.min_share
    sort: Sort = Sort.TOKENS
    descending: bool = False
    starved_only: bool = False
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1

    def value_of(self, column: str) -> str:
        """The value asked for of a facet column, empty for all."""
        return str(getattr(self, column))

    @property
    def values(self) -> dict[str, str]:
        """The values asked for by facet column."""
        return {column: value for column in FACET_COLUMNS if (value := self.value_of(column))}

    def chart_address(self, job_id: str) -> str:
        """Where the heatmap of this query is fetched from."""
        return f"/jobs/{job_id}/coverage/chart?{urlencode(self.model_dump(include=CHART_FIELDS))}"


class FacetOption(BaseModel):
    """A facet value some row of the set has."""

    value: str
    label: str


class ExpertRow(BaseModel):
    """One expert of one layer. ``share`` is of its layer's routed tokens."""

    layer: int
    expert: int
    tokens: int
    share: float
    mass: float
    rank: int
    is_starved: bool


class LayerBalanceRow(BaseModel):
    """How evenly one layer's tokens fall on its experts; see ``app.coverage.summary``."""

    layer: int
    dead: int
    starved: int
    smallest: int
    largest: int
    entropy: float | None
    gini: float | None


class CoverageView(BaseModel):
    """Which experts the set reaches: the figures, and a page of the experts' table.

    ``experts_total`` is 0 for a dense model, which has none to reach.
    """

    job: JobRow
    query: CoverageQuery
    options: dict[str, list[FacetOption]]
    rows: int
    tokens: int
    top_k: int
    experts_reached: int
    experts_total: int
    starved: int
    missing: int
    concerns: list[str]
    layers: list[LayerBalanceRow]
    experts: list[ExpertRow]
    matching: int
    page: int
    pages: int
    chart: str


def coverage_view(
    session: Session, settings: Settings, job_id: str, query: CoverageQuery
) -> CoverageView:
    """What a set reaches, or the part of it a query asks for. Raises NotFound, ProfileRefused."""
    job = get_job(session, job_id)
    whole = service.profile_of(settings, job_id)
    profile = service.part_of(settings, job_id, query.values)
    floor = floor_of(query)
    columns, places = experts_asked(profile, query)
    page, pages = page_within(len(places), query.page, PAGE_ROWS)
    shown = table_rows(columns, places[(page - 1) * PAGE_ROWS : page * PAGE_ROWS])
    reached, total = experts_reached(profile)
    layers = balance(profile, floor)
    return CoverageView(
        job=job_row(job, settings),
        query=query,
        options={column: _options(whole, column) for column in FACET_COLUMNS},
        rows=len(profile.row_ids),
        tokens=profile.total_tokens,
        top_k=profile.top_k,
        experts_reached=reached,
        experts_total=total,
        starved=sum(layer.starved for layer in layers),
        missing=tokens_missing(profile, floor),
        concerns=concerns(profile, floor),
        layers=[LayerBalanceRow.model_validate(layer, from_attributes=True) for layer in layers],
        experts=[ExpertRow(**dict(zip(ExpertRow.model_fields, row, strict=True))) for row in shown],
        matching=len(places),
        page=page,
        pages=pages,
        chart=query.chart_address(job_id),
    )


def floor_of(query: CoverageQuery) -> Floor:
    """Below how many tokens, or what part of its layer's mean, an expert is starved."""
    return Floor(min_tokens=query.floor, min_share=query.floor_percent / 100)


def experts_asked(
    profile: Profile, query: CoverageQuery
) -> tuple[dict[str, NDArray[Any]], NDArray[np.intp]]:
    """The columns of every expert, and the places of those a query asks for, sorted; equal ones
    by layer and number."""
    columns = expert_columns(profile, floor_of(query))
    places = np.flatnonzero(columns["starved"]) if query.starved_only else None
    if places is None:
        places = np.arange(len(columns["layer"]))
    if query.sort is Sort.LAYER:
        return columns, places[::-1] if query.descending else places
    values = columns[query.sort][places]
    return columns, places[np.argsort(-values if query.descending else values, kind="stable")]


def table_rows(
    columns: dict[str, NDArray[Any]], places: NDArray[np.intp]
) -> Iterator[tuple[Any, ...]]:
    """Some experts of the table, each a row."""
    return zip(*(column[places].tolist() for column in columns.values()), strict=True)


def _options(profile: Profile, column: str) -> list[FacetOption]:
    """The values of a column the set has, those of the vocabulary in its order."""
    if column not in profile.facets:
        return []
    known: dict[str, int] = {}
    if column in set(Facet):
        known = {value: place for place, value in enumerate(vocabulary(Facet(column)))}
    values = sorted(profile.values(column), key=lambda v: (known.get(v, len(known)), v))
    return [FacetOption(value=value, label=label(column, value)) for value in values]

"""Two profiles of one model: what one set feeds more than the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from app.coverage import service
from app.coverage.experts import require_same_model
from app.coverage.profile import Profile
from app.coverage.summary import DEFAULT_FLOOR, experts_reached, floors, shares, summarise
from app.jobs.service import get_job
from app.jobs.views import JobRow, job_row
from app.paging import page_of
from app.settings import Settings

PAGE_ROWS = 32
CSV_HEADER = (
    "layer", "expert", "tokens", "other_tokens", "share", "other_share", "difference_of_shares",
)  # fmt: skip
DifferenceMeasure = Literal["share", "tokens"]


class ComparisonQuery(BaseModel):
    """Which profile a job's own is compared with, and how."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    other: Annotated[str, Field(alias="with", max_length=32)] = ""
    measure: DifferenceMeasure = "share"
    sort: Literal["layer", "difference"] = "difference"
    descending: bool = True
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1


class OtherChoice(BaseModel):
    """A profile to compare with."""

    key: str
    name: str


class SideView(BaseModel):
    """One of the two profiles in figures."""

    name: str
    rows: int
    tokens: int
    experts_reached: int
    experts_total: int
    starved: int


class DifferenceRow(BaseModel):
    """One expert on both sides; ``difference`` is of shares of the layer's tokens."""

    layer: int
    expert: int
    tokens: int
    other_tokens: int
    share: float
    other_share: float
    difference: float


class ComparisonView(BaseModel):
    """Two profiles side by side; without ``sides`` there is nothing to compare with yet."""

    job: JobRow
    query: ComparisonQuery
    others: list[OtherChoice]
    sides: list[SideView]
    rows: list[DifferenceRow]
    matching: int
    page: int
    pages: int
    moved: float
    chart: str


def comparison_view(
    session: Session, settings: Settings, job_id: str, query: ComparisonQuery
) -> ComparisonView:
    """The comparison a query asks for. Raises NotFound, ProfileRefused."""
    job = get_job(session, job_id)
    profile = service.profile_of(settings, job_id)
    others = service.other_profiles(session, settings, job)
    choices = [OtherChoice(key=other.key, name=other.name) for other in others]
    key = query.other or (others[0].key if others else "")
    view = ComparisonView(
        job=job_row(job, settings),
        query=query.model_copy(update={"other": key}),
        others=choices,
        sides=[],
        rows=[],
        matching=0,
        page=1,
        pages=1,
        moved=0.0,
        chart=f"/jobs/{job_id}/coverage/compare/chart?with={key}&measure={query.measure}",
    )
    if not key:
        return view
    other, names = compared(session, settings, job_id, key)
    found = difference_rows(profile, other, query)
    view.sides = [_side(profile, names[0]), _side(other, names[1])]
    view.matching = len(found)
    view.rows, view.page, view.pages = page_of(found, query.page, PAGE_ROWS)
    view.moved = moved(profile, other)
    return view


def compared(
    session: Session, settings: Settings, job_id: str, key: str
) -> tuple[Profile, tuple[str, str]]:
    """The other profile and the names of both. Raises NotFound, ProfileRefused when they are of
    different models."""
    job = get_job(session, job_id)
    own = job.name
    name = "its held-out rows" if key == service.HELD_OUT else get_job(session, key).name
    if name == own:
        own, name = f"{own} ({job_id})", f"{name} ({key})"
    other = service.other_profile(settings, job_id, key)
    require_same_model(service.profile_of(settings, job_id), other, (own, name))
    return other, (own, name)


def moved(one: Profile, other: Profile) -> float:
    """The part of the routed tokens that would have to go to other experts for one profile to be
    as the other: half of Σ |difference of shares|, the mean over layers (total variation)."""
    if not one.experts:
        return 0.0
    apart = np.abs(shares(one.layer_counts) - shares(other.layer_counts)).sum(axis=1) / 2
    return float(apart.mean())


def compared_documents(one: Profile, other: Profile) -> dict[str, Any]:
    """What ``calibrant coverage --against --json`` adds: the other profile, and the differences
    of shares of each layer's tokens, the other's less one's."""
    apart = shares(other.layer_counts) - shares(one.layer_counts)
    return {
        "against": summarise(other),
        "moved": moved(one, other),
        "difference": [
            {"layer": int(layer), "experts": [round(float(d), 6) for d in row]}
            for layer, row in zip(one.layers, apart, strict=True)
        ],
    }


def difference_rows(one: Profile, other: Profile, query: ComparisonQuery) -> list[DifferenceRow]:
    """Every expert on both sides, sorted; equal ones by layer and number."""
    rows = list(_rows(one, other))
    if query.sort == "layer":
        return rows[::-1] if query.descending else rows
    sign = -1 if query.descending else 1
    return sorted(rows, key=lambda row: sign * row.difference)


def _rows(one: Profile, other: Profile) -> Iterator[DifferenceRow]:
    share, other_share = shares(one.layer_counts), shares(other.layer_counts)
    for place, layer in enumerate(one.layers):
        for expert in range(one.experts):
            before, after = float(share[place, expert]), float(other_share[place, expert])
            yield DifferenceRow(
                layer=int(layer),
                expert=expert,
                tokens=int(one.layer_counts[place, expert]),
                other_tokens=int(other.layer_counts[place, expert]),
                share=before,
                other_share=after,
                difference=after - before,
            )


def _side(profile: Profile, name: str) -> SideView:
    reached, total = experts_reached(profile)
    counts = profile.layer_counts
    return SideView(
        name=name,
        rows=len(profile.row_ids),
        tokens=profile.total_tokens,
        experts_reached=reached,
        experts_total=total,
        starved=int((counts < floors(counts, DEFAULT_FLOOR)[:, None]).sum()),
    )

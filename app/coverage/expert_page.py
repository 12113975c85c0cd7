"""What the page about one expert shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from app.coverage import service
from app.coverage.experts import (
    FeedingRow,
    Load,
    companions,
    feeding_rows,
    feedings,
    load_of,
    require_same_model,
)
from app.coverage.profile import FACET_COLUMNS, Profile, label
from app.coverage.summary import DEFAULT_FLOOR
from app.jobs.service import get_job
from app.jobs.views import JobRow, job_row
from app.settings import Settings

VALUES_SHOWN = 8
ROWS_SHOWN = 5
COMPANIONS_SHOWN = 8
CHARACTERS_SHOWN = 400


class ExpertQuery(BaseModel):
    """Which other profile is asked who else would feed the expert; empty for the first there is."""

    model_config = ConfigDict(extra="ignore")

    among: Annotated[str, Field(max_length=32)] = ""


class FeedingView(BaseModel):
    """What one facet value gives the expert: tokens, their part of the expert's, and how many of a
    thousand of its own tokens."""

    value: str
    label: str
    tokens: int
    share: float
    rate: float


class FeedingTable(BaseModel):
    """The values of one facet column that feed an expert, and how many more there are."""

    column: str
    label: str
    values: list[FeedingView]
    more: int


class RowView(BaseModel):
    """A row that feeds the expert: tokens routed to it of all the row has, and its text, cut to
    ``CHARACTERS_SHOWN``; None where the set is not kept."""

    row_id: str
    tokens: int
    of: int
    facets: dict[str, str]
    text: str | None
    is_cut: bool


class CompanionView(BaseModel):
    """An expert chosen for the same tokens; see ``app.coverage.experts``."""

    expert: int
    tokens: int
    share: float
    lift: float


class OtherView(BaseModel):
    """A profile that can be asked who else would feed the expert."""

    key: str
    name: str


class ElsewhereView(BaseModel):
    """Who else would feed the expert: values and rows of another profile of the same model that
    are not in this set."""

    key: str
    name: str
    load: LoadView
    tables: list[FeedingTable]
    rows: list[RowView]
    texts_problem: str | None


class LoadView(BaseModel):
    """An expert's load; see ``app.coverage.experts``."""

    tokens: int
    share: float
    to_mean: float
    mass: float
    rank: int


class ExpertView(BaseModel):
    """One expert: its load, who feeds it, who works with it, who else would feed it."""

    job: JobRow
    layer: int
    expert: int
    experts: int
    layers: list[int]
    floor: int
    load: LoadView
    tables: list[FeedingTable]
    rows: list[RowView]
    texts_problem: str | None
    companions: list[CompanionView] | None
    others: list[OtherView]
    elsewhere: ElsewhereView | None


def expert_view(
    session: Session, settings: Settings, job_id: str, place: tuple[int, int], query: ExpertQuery
) -> ExpertView:
    """One expert, ``place`` being its decoder layer and number.

    Raises NotFound, ProfileRefused when another model's profile is asked.
    """
    job = get_job(session, job_id)
    profile = service.profile_of(settings, job_id)
    load = _load(load_of(profile, *place))
    others = service.other_profiles(session, settings, job)
    rows, texts_problem = _rows(settings, profile, feeding_rows(profile, *place, ROWS_SHOWN))
    near = companions(profile, *place, COMPANIONS_SHOWN)
    return ExpertView(
        job=job_row(job, settings),
        layer=place[0],
        expert=place[1],
        experts=profile.experts,
        layers=profile.layers.tolist(),
        floor=DEFAULT_FLOOR.min_tokens,
        load=load,
        tables=_tables(profile, place),
        rows=rows,
        texts_problem=texts_problem,
        companions=None
        if near is None
        else [CompanionView.model_validate(one, from_attributes=True) for one in near],
        others=[OtherView(key=other.key, name=other.name) for other in others],
        elsewhere=_elsewhere(settings, job_id, profile, place, _asked(others, query)),
    )


def _asked(
    others: Sequence[service.OtherProfile], query: ExpertQuery
) -> service.OtherProfile | None:
    if not query.among:
        return others[0] if others else None
    named = (other for other in others if other.key == query.among)
    return next(named, service.OtherProfile(query.among, f"job {query.among}", query.among))


def _elsewhere(
    settings: Settings,
    job_id: str,
    profile: Profile,
    place: tuple[int, int],
    other: service.OtherProfile | None,
) -> ElsewhereView | None:
    if other is None:
        return None
    found = service.other_profile(settings, job_id, other.key)
    require_same_model(profile, found, ("this set", other.name))
    rows = feeding_rows(found, *place, ROWS_SHOWN, but=profile.row_ids)
    shown, texts_problem = _rows(settings, found, rows)
    return ElsewhereView(
        key=other.key,
        name=other.name,
        load=_load(load_of(found, *place)),
        tables=_tables(found, place, by_rate=True),
        rows=shown,
        texts_problem=texts_problem,
    )


def _load(load: Load) -> LoadView:
    return LoadView.model_validate(load, from_attributes=True)


def _tables(profile: Profile, place: tuple[int, int], by_rate: bool = False) -> list[FeedingTable]:
    """A table a facet column that has values, the largest giver first: in tokens, or in tokens of
    a thousand."""
    tables = []
    for column in FACET_COLUMNS:
        if column not in profile.facets:
            continue
        found = [one for one in feedings(profile, *place, column) if one.tokens]
        if by_rate:
            found.sort(key=lambda one: (-one.rate, one.value))
        if found:
            shown = [
                FeedingView(
                    value=one.value,
                    label=label(column, one.value),
                    tokens=one.tokens,
                    share=one.share,
                    rate=one.rate,
                )
                for one in found[:VALUES_SHOWN]
            ]
            more = len(found) - len(shown)
            name = column.replace("_", " ").capitalize()
            tables.append(FeedingTable(column=column, label=name, values=shown, more=more))
    return tables


def _rows(
    settings: Settings, profile: Profile, found: Sequence[FeedingRow]
) -> tuple[list[RowView], str | None]:
    """The rows with their texts, and why those cannot be read."""
    texts = service.texts_of(settings, profile, [one.row_id for one in found])
    rows = [
        RowView(
            row_id=one.row_id,
            tokens=one.tokens,
            of=one.of,
            facets={
                column: label(column, str(values[one.row]))
                for column, values in profile.facets.items()
                if values[one.row]
            },
            text=text[:CHARACTERS_SHOWN] if (text := texts.by_row.get(one.row_id)) else None,
            is_cut=text is not None and len(text) > CHARACTERS_SHOWN,
        )
        for one in found
    ]
    return rows, texts.problem

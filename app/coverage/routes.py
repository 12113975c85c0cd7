"""The pages about a job's coverage: the heatmap, one expert, two profiles, rows of a pool."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from app.calibration.views import SetView, set_view
from app.coverage import comparison, service
from app.coverage.comparison import ComparisonQuery, ComparisonView, comparison_view
from app.coverage.expert_page import ExpertQuery, ExpertView, expert_view
from app.coverage.heatmap import difference, heatmap
from app.coverage.rows_page import CSV_HEADER as ROWS_HEADER
from app.coverage.rows_page import (
    NewPool,
    RowsQuery,
    RowsView,
    SavedChoice,
    chosen_rows,
    rows_view,
)
from app.coverage.service import profile_of
from app.coverage.summary import CSV_HEADER
from app.coverage.views import (
    CoverageQuery,
    CoverageView,
    coverage_view,
    experts_asked,
    table_rows,
)
from app.dependencies import SessionDep, SettingsDep
from app.jobs.service import get_job
from app.jobs.views import JobView, job_view
from app.negotiation import SubmissionDep, Table, answer, created, takes
from app.settings import Settings
from app.validation import validated

router = APIRouter(tags=["coverage"])

QueryDep = Annotated[CoverageQuery, Query()]
ComparisonDep = Annotated[ComparisonQuery, Query()]
EXPERT_HEADER = ("column", "value", "tokens", "share", "of_a_thousand")


@router.get("/jobs/{job_id}/coverage", response_model=CoverageView)
def coverage_page(
    request: Request, session: SessionDep, settings: SettingsDep, job_id: str, query: QueryDep
) -> Response:
    """Which experts the set reaches; its CSV is one row an expert."""
    view = coverage_view(session, settings, job_id, query)
    table = Table(f"coverage-{job_id}", CSV_HEADER, _every_expert(settings, job_id, query))
    return answer(request, view, "coverage/show.html", table=table)


def _every_expert(
    settings: Settings, job_id: str, query: CoverageQuery
) -> Iterator[tuple[Any, ...]]:
    yield from table_rows(*experts_asked(service.part_of(settings, job_id, query.values), query))


@router.get("/jobs/{job_id}/coverage/chart")
def coverage_chart(
    session: SessionDep, settings: SettingsDep, job_id: str, query: QueryDep
) -> dict[str, Any]:
    """The heatmap, layer by expert: a plotly figure whose arrays are base64 typed arrays, and what
    the pointer shows of each cell under ``hover``."""
    get_job(session, job_id)
    profile = service.part_of(settings, job_id, query.values)
    return heatmap(profile, measure=query.measure, order=query.order, scale=query.scale)


@router.get("/jobs/{job_id}/coverage/experts/{layer}/{expert}", response_model=ExpertView)
def expert_page(
    request: Request,
    session: SessionDep,
    settings: SettingsDep,
    job_id: str,
    layer: int,
    expert: int,
    query: Annotated[ExpertQuery, Query()],
) -> Response:
    """One expert: who feeds it, rows that do, experts chosen with it, who else would feed it."""
    view = expert_view(session, settings, job_id, (layer, expert), query)
    rows = (
        (one.column, each.value, each.tokens, round(each.share, 6), round(each.rate, 3))
        for one in view.tables
        for each in one.values
    )
    table = Table(f"expert-{job_id}-{layer}-{expert}", EXPERT_HEADER, rows)
    return answer(request, view, "coverage/expert.html", table=table)


@router.get("/jobs/{job_id}/coverage/compare", response_model=ComparisonView)
def comparison_page(
    request: Request, session: SessionDep, settings: SettingsDep, job_id: str, query: ComparisonDep
) -> Response:
    """Two profiles of one model, expert by expert."""
    view = comparison_view(session, settings, job_id, query)
    table = None
    if view.query.other:
        other, _ = comparison.compared(session, settings, job_id, view.query.other)
        found = comparison.difference_rows(profile_of(settings, job_id), other, query)
        rows = (list(row.model_dump().values()) for row in found)
        table = Table(f"coverage-{job_id}-{view.query.other}", comparison.CSV_HEADER, rows)
    return answer(request, view, "coverage/compare.html", table=table)


@router.get("/jobs/{job_id}/coverage/compare/chart")
def comparison_chart(
    session: SessionDep, settings: SettingsDep, job_id: str, query: ComparisonDep
) -> dict[str, Any]:
    """The difference of two profiles as a heatmap on a diverging scale."""
    other, names = comparison.compared(session, settings, job_id, query.other)
    return difference(profile_of(settings, job_id), other, names, measure=query.measure)


@router.get("/jobs/{job_id}/coverage/rows", response_model=RowsView)
def rows_page(
    request: Request, session: SessionDep, settings: SettingsDep, job_id: str
) -> Response:
    """Choose rows of what the job profiled, for the worst-fed experts, under a budget."""
    query = validated(RowsQuery, RowsQuery.of(dict(request.query_params)))
    view = rows_view(session, settings, job_id, query)
    table = None
    if view.result is not None:
        chosen = chosen_rows(service.choice_of(session, settings, job_id, query.wish()))
        rows = ([getattr(row, column) for column in ROWS_HEADER] for row in chosen)
        table = Table(f"rows-{job_id}", ROWS_HEADER, rows)
    status = 422 if view.problem else 200
    return answer(request, view, "coverage/rows.html", table=table, status=status)


@router.get("/jobs/{job_id}/coverage/rows/chart")
def rows_chart(
    session: SessionDep, settings: SettingsDep, job_id: str, query: Annotated[RowsQuery, Query()]
) -> dict[str, Any]:
    """What the chosen rows feed more than random ones do, in tokens."""
    chosen = service.choice_of(session, settings, job_id, query.wish())
    profile = chosen.profile
    names = ("random rows", "chosen rows")
    sides = (profile.only(chosen.random_rows), profile.only(chosen.rows))
    return difference(*sides, names, measure="tokens")


@router.post(
    "/jobs/{job_id}/coverage/rows",
    response_model=SetView,
    status_code=201,
    openapi_extra=takes(SavedChoice),
)
def save_rows(
    request: Request,
    session: SessionDep,
    settings: SettingsDep,
    job_id: str,
    submission: SubmissionDep,
) -> Response:
    """Keep the chosen rows as an ordinary set."""
    given = submission.document if submission.is_json else RowsQuery.of(dict(submission.fields))
    asked = validated(SavedChoice, given)
    saved = service.save_choice(session, settings, job_id, asked.wish(), asked.name)
    model_id = get_job(session, job_id).model_id
    view = set_view(session, settings, saved.id, model_id)
    return created(request, f"/sets/{saved.id}?model={model_id}", view)


@router.post(
    "/jobs/{job_id}/coverage/pool",
    response_model=JobView,
    status_code=201,
    openapi_extra=takes(NewPool),
)
def profile_pool(
    request: Request,
    session: SessionDep,
    settings: SettingsDep,
    job_id: str,
    submission: SubmissionDep,
) -> Response:
    """Profile a pool of the job's set: the same composition, of many times its tokens."""
    given = submission.document if submission.is_json else RowsQuery.of(dict(submission.fields))
    asked = validated(NewPool, given)
    job = service.start_pool(session, settings, job_id, asked.times)
    return created(request, f"/jobs/{job.id}", job_view(session, settings, job.id))

"""The page about a job's coverage."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from app.coverage.heatmap import heatmap
from app.coverage.summary import CSV_HEADER
from app.coverage.views import (
    CoverageQuery,
    CoverageView,
    coverage_view,
    expert_rows,
    filtered,
    profile_of,
)
from app.dependencies import SessionDep, SettingsDep
from app.jobs.service import get_job
from app.negotiation import Table, answer

router = APIRouter(tags=["coverage"])

QueryDep = Annotated[CoverageQuery, Query()]


@router.get("/jobs/{job_id}/coverage", response_model=CoverageView)
def coverage_page(
    request: Request, session: SessionDep, settings: SettingsDep, job_id: str, query: QueryDep
) -> Response:
    """Which experts the set reaches; its CSV is one row an expert."""
    view = coverage_view(session, settings, job_id, query)
    found = expert_rows(filtered(profile_of(settings, job_id), query), query)
    rows = (list(expert.model_dump().values()) for expert in found)
    table = Table(f"coverage-{job_id}", CSV_HEADER, rows)
    return answer(request, view, "coverage/show.html", table=table)


@router.get("/jobs/{job_id}/coverage/chart")
def coverage_chart(
    session: SessionDep, settings: SettingsDep, job_id: str, query: QueryDep
) -> dict[str, Any]:
    """The heatmap, layer by expert: a plotly figure whose arrays are base64 typed arrays."""
    get_job(session, job_id)
    profile = filtered(profile_of(settings, job_id), query)
    return heatmap(profile, measure=query.measure, order=query.order, scale=query.scale)

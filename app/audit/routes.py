"""The pages about a set's audit."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from app.audit.charts import row_lengths
from app.audit.views import (
    MOST_ROWS,
    VALUE_COLUMNS,
    AuditView,
    RowsView,
    audit_view,
    report_of,
    rows_view,
    value_rows,
)
from app.dependencies import SessionDep, SettingsDep
from app.negotiation import Table, answer

router = APIRouter(tags=["sets"])

Built = Annotated[str | None, Query(max_length=64)]


@router.get("/sets/{set_id}/audit", response_model=AuditView)
def audit_page(
    request: Request,
    session: SessionDep,
    settings: SettingsDep,
    set_id: str,
    built: Built = None,
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> Response:
    """What a built set is labelled with against what is in it; its CSV is one row a value."""
    view = audit_view(session, settings, set_id, built, page)
    table = Table(f"audit-{set_id}", VALUE_COLUMNS, value_rows(view.report))
    return answer(request, view, "audit/show.html", table=table)


@router.get("/sets/{set_id}/audit/chart")
def audit_chart(
    session: SessionDep, settings: SettingsDep, set_id: str, built: Built = None
) -> dict[str, Any]:
    """The histogram of row lengths: a plotly figure."""
    return row_lengths(report_of(session, settings, set_id, built).lengths)


@router.get("/sets/{set_id}/audit/rows", response_model=RowsView)
def audit_rows_page(
    request: Request,
    session: SessionDep,
    settings: SettingsDep,
    set_id: str,
    built: Annotated[str, Query(max_length=64)],
    row: Annotated[list[str], Query(max_length=MOST_ROWS)],
) -> Response:
    """Some rows of a built set: those a finding is about."""
    view = rows_view(session, settings, set_id, built, row)
    return answer(request, view, "audit/rows.html")

"""The overview page."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.dependencies import SessionDep, SettingsDep
from app.negotiation import answer
from app.overview.views import OverviewView, overview

router = APIRouter(tags=["overview"])


@router.get("/", response_model=OverviewView)
def overview_page(request: Request, session: SessionDep, settings: SettingsDep) -> Response:
    """What is running, is it good enough, what can be done next."""
    return answer(request, overview(session, settings), "overview/show.html")

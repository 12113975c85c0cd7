"""The page about sources."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from app.dependencies import SettingsDep
from app.errors import NotFound
from app.negotiation import Table, answer
from app.sources.catalogue import get_source
from app.sources.views import SourceListView, source_list

router = APIRouter(tags=["sources"])

COLUMNS = ("name", "title", "kind", "rows", "size_bytes", "revision")


@router.get("/sources", response_model=SourceListView)
def sources_page(request: Request, settings: SettingsDep) -> Response:
    """The packs of the starter corpus: rows, licences, what is in them."""
    view = source_list(settings)
    rows = ([getattr(row.source, column) for column in COLUMNS] for row in view.sources)
    return answer(request, view, "sources/list.html", table=Table("sources", COLUMNS, rows))


@router.get("/sources/{name}/NOTICE", response_class=PlainTextResponse)
def source_notice(name: str) -> Response:
    """Whose work a pack is, and under which licences."""
    source = get_source(name)
    if source.notice is None:
        raise NotFound(f"Source {name!r} has no NOTICE.")
    return PlainTextResponse(source.notice)

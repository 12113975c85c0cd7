"""The pages about checkpoints, and the download of their files."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse, Response

from app.checkpoints import service
from app.checkpoints.facts import facts_of
from app.checkpoints.model_card import model_card
from app.checkpoints.report import ReportView, coverage_picture, report_view
from app.checkpoints.views import (
    CheckpointListView,
    CheckpointView,
    checkpoint_list,
    checkpoint_rows,
    checkpoint_view,
    checksums,
)
from app.dependencies import SessionDep, SettingsDep
from app.errors import NotFound
from app.negotiation import Table, answer
from app.templating import render

router = APIRouter(tags=["checkpoints"])

COLUMNS = (
    "id", "name", "recipe", "job_id", "is_verified", "problems", "files", "bytes_before",
    "bytes_after", "created_at", "kl_mean", "gates",
)  # fmt: skip
FILE_COLUMNS = ("name", "size_bytes", "sha256")


@router.get("/checkpoints", response_model=CheckpointListView)
def checkpoints_page(
    request: Request, session: SessionDep, page: Annotated[int, Query(ge=1, le=1_000_000)] = 1
) -> Response:
    """The checkpoints, the newest first. Their CSV has every page."""
    view = checkpoint_list(session, page)
    rows = ([getattr(row, column) for column in COLUMNS] for row in checkpoint_rows(session))
    return answer(request, view, "checkpoints/list.html", table=Table("checkpoints", COLUMNS, rows))


@router.get("/checkpoints/{checkpoint_id}", response_model=CheckpointView)
def checkpoint_page(request: Request, session: SessionDep, checkpoint_id: str) -> Response:
    """One checkpoint: files, verification, sizes, commands."""
    view = checkpoint_view(session, checkpoint_id, str(request.base_url).rstrip("/"))
    rows = ([getattr(file, column) for column in FILE_COLUMNS] for file in view.files)
    table = Table(f"checkpoint-{checkpoint_id}", FILE_COLUMNS, rows)
    return answer(request, view, "checkpoints/show.html", table=table)


@router.get("/checkpoints/{checkpoint_id}/SHA256SUMS", response_class=PlainTextResponse)
def checkpoint_checksums(session: SessionDep, checkpoint_id: str) -> Response:
    """The files' SHA-256 as ``sha256sum -c`` reads them."""
    return PlainTextResponse(checksums(service.get_checkpoint(session, checkpoint_id)))


@router.get("/checkpoints/{checkpoint_id}/README.md", response_class=PlainTextResponse)
def checkpoint_card(session: SessionDep, settings: SettingsDep, checkpoint_id: str) -> Response:
    """The model card, as a hub reads it."""
    service.get_checkpoint(session, checkpoint_id)
    text = model_card(facts_of(session, settings, checkpoint_id))
    name = {"content-disposition": 'attachment; filename="README.md"'}
    return PlainTextResponse(text, media_type="text/markdown; charset=utf-8", headers=name)


@router.get("/checkpoints/{checkpoint_id}/coverage.svg", response_class=Response)
def checkpoint_picture(session: SessionDep, settings: SettingsDep, checkpoint_id: str) -> Response:
    """The picture of the coverage that the model card shows."""
    service.get_checkpoint(session, checkpoint_id)
    picture = coverage_picture(settings, checkpoint_id)
    if picture is None:
        raise NotFound(f"Checkpoint {checkpoint_id} has no coverage to draw.")
    name = {"content-disposition": 'attachment; filename="coverage.svg"'}
    return Response(picture, media_type="image/svg+xml", headers=name)


@router.get("/jobs/{job_id}/report", response_model=ReportView)
def report_page(
    request: Request, session: SessionDep, settings: SettingsDep, job_id: str
) -> Response:
    """One page about a job that a person can share."""
    return answer(request, report_view(session, settings, job_id), "checkpoints/report.html")


@router.get("/jobs/{job_id}/report.html", response_class=HTMLResponse)
def report_file(session: SessionDep, settings: SettingsDep, job_id: str) -> Response:
    """The same as one file that needs nothing else."""
    view = report_view(session, settings, job_id)
    name = {"content-disposition": f'attachment; filename="report-{job_id}.html"'}
    return HTMLResponse(render("checkpoints/report_file.html", view=view), headers=name)


@router.get("/checkpoints/{checkpoint_id}/files/{name:path}", response_class=FileResponse)
def checkpoint_file(
    request: Request, session: SessionDep, checkpoint_id: str, name: str
) -> Response:
    """One file, whole or in ranges (Range, If-Range), or word that a copy is still the same
    (If-None-Match)."""
    path, file = service.file_of(service.get_checkpoint(session, checkpoint_id), name)
    # The content's own name: a range asked for with If-Range is of the same bytes, whatever
    # happened to the file's times.
    etag = {"etag": f'"{file.sha256}"'}
    if file.sha256 in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=etag)
    return FileResponse(
        path,
        filename=path.name,
        media_type="application/octet-stream",
        headers=etag,
    )

"""The pages about sets as files and side by side: import one, download one, compare two."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.background import BackgroundTask
from starlette.datastructures import FormData, UploadFile

from app.calibration import service
from app.dependencies import SessionDep, SettingsDep
from app.errors import Refused
from app.negotiation import Table, answer, created, takes, wants_html
from app.set_files.comparing import built_set
from app.set_files.difference_views import (
    ROW_COLUMNS,
    DifferenceQuery,
    DifferenceView,
    csv_rows,
    difference_view,
)
from app.set_files.reading import MAX_CHARACTERS
from app.set_files.rows import jsonl_lines, write_rows
from app.set_files.service import exported, keep_imported, read_for
from app.set_files.views import ImportView, import_report
from app.validation import validated
from app.yaml_lines import MAX_BYTES, decoded

router = APIRouter(tags=["sets"])

# A file or its text, and what a form puts around them.
MAX_BODY = 2_500_000


class GivenFile(BaseModel):
    """A set's file to read: its text and its name. With ``keep`` the set is saved, as ``name``
    where that is given."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[str, Field(max_length=MAX_CHARACTERS)]
    file_name: Annotated[str, Field(max_length=200)] = "pasted.yaml"
    name: Annotated[str, Field(max_length=120)] = ""
    keep: bool = False


@dataclass(frozen=True)
class Given:
    """What a client sent: a file's bytes or a text, its name, and what to do when it is right."""

    content: bytes | str
    file_name: str
    keep: Literal["", "set", "compose"] = ""
    name: str = ""


async def _given(request: Request) -> Given:
    length = request.headers.get("content-length", "")
    if not length.isdigit() or int(length) > MAX_BODY:
        said = f"{int(length):,} bytes" if length.isdigit() else "of an unknown size"
        raise Refused(f"What was sent is {said}; a set's file has at most {MAX_BYTES:,} bytes.")
    if request.headers.get("content-type", "").partition(";")[0].strip() == "application/json":
        try:
            document = await request.json()
        except ValueError as error:
            raise Refused(f"The request is not JSON: {error}.") from error
        file = validated(GivenFile, document)
        return Given(file.text, file.file_name, "set" if file.keep else "", file.name)
    form = await request.form(max_files=1, max_fields=10, max_part_size=MAX_BODY)
    upload, text, keep = form.get("file"), form.get("text"), form.get("keep")
    if isinstance(upload, UploadFile) and upload.filename:
        name = PurePath(upload.filename.replace("\\", "/")).name[-200:]
        return Given(await upload.read(MAX_BYTES + 1), name)
    # a browser sends the lines of a text with CR LF
    typed = text.replace("\r\n", "\n") if isinstance(text, str) else ""
    wanted: Literal["", "set", "compose"] = ""
    if keep in ("set", "compose"):
        wanted = "compose" if keep == "compose" else "set"
    return Given(typed, _text(form, "file_name") or "pasted.yaml", wanted, _text(form, "name"))


def _text(form: FormData, field: str) -> str:
    value = form.get(field)
    return value.strip()[:200] if isinstance(value, str) else ""


GivenDep = Annotated[Given, Depends(_given)]


@router.get("/sets/import", response_model=ImportView)
def import_page(request: Request) -> Response:
    """Where a set's file is given."""
    return answer(request, ImportView(), "set_files/import.html")


@router.post("/sets/import", response_model=ImportView, openapi_extra=takes(GivenFile))
def read_file(request: Request, session: SessionDep, given: GivenDep) -> Response:
    """What a set's file is, with every warning at its line; kept when that is asked for."""
    text = given.content if isinstance(given.content, str) else ""
    try:
        if isinstance(given.content, bytes):
            text = decoded(given.content, given.file_name)
        found = read_for(session, text, given.file_name)
        if given.name:
            found.spec = found.spec.model_copy(update={"name": given.name[:120]})
        notes = found.notes(text, given.file_name)
        saved = keep_imported(session, found, notes) if given.keep else None
    except Refused as refused:
        if not wants_html(request):
            raise
        view = ImportView(file_name=given.file_name, text=text, problem=refused.sentence)
        return answer(request, view, "set_files/import.html", status=422)
    view = ImportView(
        file_name=given.file_name,
        text=text,
        found=import_report(found, notes),
        id=saved.id if saved else None,
    )
    if saved is None:
        return answer(request, view, "set_files/import.html")
    composer = f"/sets/new?like={saved.id}"
    return created(request, composer if given.keep == "compose" else f"/sets/{saved.id}", view)


@router.get("/sets/{set_id}/quantizers.yaml", response_class=PlainTextResponse)
def quantizers_file(session: SessionDep, set_id: str) -> Response:
    """A set in the quantizers' format. Refused, naming what, where that cannot say it."""
    saved = service.get_set(session, set_id)
    file = exported(session, service.spec_of(saved))
    if file.format != "quantizers":
        raise Refused(
            f"The quantizers' format cannot say this set: {file.unsaid}. Take calibrant.yaml."
        )
    return _yaml(file.text, f"{saved.id}.yaml")


@router.get("/sets/{set_id}/calibrant.yaml", response_class=PlainTextResponse)
def own_file(session: SessionDep, set_id: str) -> Response:
    """A set in our own format, with the catalogue entries it needs."""
    saved = service.get_set(session, set_id)
    return _yaml(exported(session, service.spec_of(saved), own=True).text, f"{saved.id}.yaml")


@router.get("/sets/diff", response_model=DifferenceView)
def difference_page(
    request: Request,
    session: SessionDep,
    settings: SettingsDep,
    query: Annotated[DifferenceQuery, Query()],
) -> Response:
    """Two sets side by side: by field, slice, facet and row. Its CSV is the rows that differ."""
    view = difference_view(session, settings, query)
    table = Table("difference", ROW_COLUMNS, csv_rows(view))
    return answer(request, view, "set_files/diff.html", table=table)


@router.get("/sets/built/{built_id}/rows.jsonl", response_class=StreamingResponse)
def rows_as_jsonl(settings: SettingsDep, built_id: str) -> Response:
    """The rendered rows of a built set: messages and text, one row a line."""
    built = built_set(settings, built_id)
    lines = jsonl_lines(built, settings.sources_dir)
    headers = {"content-disposition": f'attachment; filename="{built.id}.jsonl"'}
    return StreamingResponse(lines, media_type="application/x-ndjson", headers=headers)


@router.get("/sets/built/{built_id}/rows.parquet", response_class=FileResponse)
def rows_as_parquet(settings: SettingsDep, built_id: str) -> Response:
    """The rendered rows of a built set with their tokens, as llmcompressor reads them."""
    built = built_set(settings, built_id)
    directory = Path(tempfile.mkdtemp(prefix="calibrant-"))
    place = directory / f"{built.id}.parquet"
    away = BackgroundTask(shutil.rmtree, directory, ignore_errors=True)
    write_rows(built, "parquet", place, settings.sources_dir)
    kind = "application/vnd.apache.parquet"
    return FileResponse(place, filename=place.name, media_type=kind, background=away)


def _yaml(text: str, name: str) -> Response:
    disposition = {"content-disposition": f'attachment; filename="{name}"'}
    return PlainTextResponse(text, media_type="application/yaml", headers=disposition)

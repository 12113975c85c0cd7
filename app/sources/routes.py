"""The pages about sources."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from app.dependencies import SessionDep, SettingsDep
from app.errors import Conflict, NotFound, Refused
from app.facets import Facet
from app.negotiation import (
    Submission,
    SubmissionDep,
    Table,
    answer,
    created,
    done,
    takes,
    wants_html,
)
from app.settings import Settings
from app.sources import service
from app.sources.adding import NewSource, add_folder, add_hub, add_upload, by_comma
from app.sources.catalogue import get_entry, get_source, list_sources
from app.sources.entry import Column, SourceEntry
from app.sources.fetch_process import start_fetch
from app.sources.search import SourceQuery
from app.sources.uploads import Sent, SentDep
from app.sources.views import (
    AddSourceView,
    SourceListView,
    SourceView,
    add_source_view,
    can_be_fetched,
    found_sources,
    source_list,
    source_view,
)
from app.validation import validated

router = APIRouter(tags=["sources"])

COLUMNS = ("name", "title", "kind", "state", "enabled", "place", "rows", "size_bytes", "revision")
QueryDep = Annotated[SourceQuery, Query()]
PageParam = Annotated[int, Query(ge=1, le=1_000_000)]


class SourceChange(BaseModel):
    """What to change of a source; a field that is not given stays. A tag that is empty, or the name
    of a column that holds rows' own labels, is taken away."""

    model_config = ConfigDict(extra="forbid")

    title: Annotated[str | None, Field(max_length=200)] = None
    formatter: Annotated[str | None, Field(max_length=80)] = None
    columns: tuple[Column, ...] | None = None
    license: Annotated[str | None, Field(max_length=200)] = None
    spoken_language: Annotated[str | None, Field(max_length=80)] = None
    programming_language: Annotated[str | None, Field(max_length=80)] = None
    domain: Annotated[str | None, Field(max_length=80)] = None
    spoken_language_column: Annotated[str | None, Field(max_length=200)] = None
    programming_language_column: Annotated[str | None, Field(max_length=200)] = None
    domain_column: Annotated[str | None, Field(max_length=200)] = None
    set_aside_limit: Annotated[int, Field(ge=0)] | Literal["none"] | None = None
    enabled: bool | None = None

    @classmethod
    def of(cls, submission: Submission) -> SourceChange:
        """A change from a form or a JSON document. Raises Refused when it is not one."""
        if submission.is_json:
            return validated(cls, submission.document)
        given: dict[str, Any] = {
            name: submission.text(name) for name in cls.model_fields if name in submission.fields
        }
        if "columns" in given:
            given["columns"] = by_comma(given["columns"])
        return validated(cls, given)

    def changes(self, entry: SourceEntry) -> dict[str, Any]:
        """The fields of an entry that change."""
        by_facet = {facet.value for facet in Facet} | {f"{facet.value}_column" for facet in Facet}
        given = self.model_dump(exclude_none=True, exclude=by_facet)
        if given.get("set_aside_limit") == "none":
            given["set_aside_limit"] = None
        if "license" in given:
            given["license"] = given["license"] or None
        return {
            **given,
            **self._labels("tags", entry.tags, ""),
            **self._labels("label_columns", entry.label_columns, "_column"),
        }

    def _labels(self, field: str, old: dict[Facet, str], suffix: str) -> dict[str, Any]:
        new = {facet: getattr(self, f"{facet.value}{suffix}") for facet in Facet}
        kept = {facet: old.get(facet, "") if text is None else text for facet, text in new.items()}
        wanted = {facet: text for facet, text in kept.items() if text}
        return {} if wanted == old else {field: wanted}


def _takes_file() -> dict[str, Any]:
    """What OpenAPI says of a new source: a JSON document, or a form that may have a file."""
    described = takes(NewSource)
    content = described["requestBody"]["content"]
    schema = content["application/json"]["schema"]
    file = {"type": "string", "format": "binary"}
    content["multipart/form-data"] = {
        "schema": {**schema, "properties": {**schema["properties"], "file": file}}
    }
    return described


@router.get("/sources", response_model=SourceListView)
def sources_page(
    request: Request, session: SessionDep, settings: SettingsDep, query: QueryDep
) -> Response:
    """The catalogue: what there is to compose from. Its CSV has every page."""
    found = found_sources(session, list_sources(session, settings), query)
    rows = ([getattr(source, column) for column in COLUMNS] for source in found)
    view = source_list(session, settings, query)
    return answer(request, view, "sources/list.html", table=Table("sources", COLUMNS, rows))


@router.get("/sources/new", response_model=AddSourceView)
def new_source_page(request: Request, settings: SettingsDep) -> Response:
    """The form for a new source: a file, a data set of the hub, a folder."""
    return answer(request, add_source_view(settings), "sources/new.html")


@router.post("/sources", response_model=SourceView, status_code=201, openapi_extra=_takes_file())
def add_source(
    request: Request, session: SessionDep, settings: SettingsDep, sent: SentDep
) -> Response:
    """Add a source. A form that is not right comes back with a sentence."""
    try:
        name = _added(session, settings, sent)
    except Refused as error:
        if not wants_html(request):
            raise
        typed = {key: str(value) for key, value in sent.fields.items()}
        kind = "hub" if typed.get("hub_id") else "folder" if typed.get("folder") else "upload"
        view = add_source_view(settings, kind, typed, problem=error.sentence)
        return answer(request, view, "sources/new.html", status=error.status)
    return created(request, f"/sources/{name}", source_view(session, settings, name))


@router.post("/sources/fetch", response_model=SourceListView, status_code=202)
def fetch_sources(
    request: Request, session: SessionDep, settings: SettingsDep, query: QueryDep
) -> Response:
    """Fetch every source that is asked for and has no rows here, one after the other."""
    found = found_sources(session, list_sources(session, settings), query)
    names = [source.name for source in found if can_be_fetched(source)]
    if not names:
        raise Conflict("The rows of every source that is asked for are here, or on their way.")
    start_fetch(session, settings, names)
    view = source_list(session, settings, query)
    return done(request, f"/sources?{request.url.query}", view, status=202)


@router.get("/sources/{name}", response_model=SourceView)
def source_page(
    request: Request, session: SessionDep, settings: SettingsDep, name: str, page: PageParam = 1
) -> Response:
    """One source: real rows, those set aside with the reason, how it is fetched."""
    view = source_view(session, settings, name, page)
    return answer(request, view, "sources/show.html")


@router.get("/sources/{name}/state", response_model=SourceView)
def source_state(
    request: Request, session: SessionDep, settings: SettingsDep, name: str
) -> Response:
    """The state of a source while it is fetched: a part of its page."""
    return answer(request, source_view(session, settings, name), "sources/_state.html")


@router.post("/sources/{name}", response_model=SourceView, openapi_extra=takes(SourceChange))
def change_source(
    request: Request,
    session: SessionDep,
    settings: SettingsDep,
    name: str,
    submission: SubmissionDep,
) -> Response:
    """Tag a source, change its formatter or columns, enable or disable it."""
    entry = get_entry(session, name)
    try:
        changes = SourceChange.of(submission).changes(entry)
        service.change(session, settings, name, changes)
    except Refused as error:
        if not wants_html(request):
            raise
        view = source_view(session, settings, name, problem=error.sentence)
        return answer(request, view, "sources/show.html", status=error.status)
    return done(request, f"/sources/{name}", source_view(session, settings, name))


@router.post("/sources/{name}/fetch", response_model=SourceView, status_code=202)
def fetch_source(
    request: Request, session: SessionDep, settings: SettingsDep, name: str
) -> Response:
    """Fetch the rows anew, in a process beside the server."""
    start_fetch(session, settings, [name])
    return done(request, f"/sources/{name}", source_view(session, settings, name), status=202)


@router.post("/sources/{name}/delete", response_class=Response)
def delete_source(
    request: Request, session: SessionDep, settings: SettingsDep, name: str
) -> Response:
    """Take a source and its rows away; refused while a set uses it."""
    try:
        service.delete(session, settings, name)
    except Refused as error:
        if not wants_html(request) or isinstance(error, NotFound):
            raise
        view = source_view(session, settings, name, problem=error.sentence)
        return answer(request, view, "sources/show.html", status=error.status)
    if wants_html(request):
        return RedirectResponse("/sources", status_code=303)
    return Response(status_code=204)


@router.get("/sources/{name}/NOTICE", response_class=PlainTextResponse)
def source_notice(session: SessionDep, settings: SettingsDep, name: str) -> Response:
    """Whose work a pack is, and under which licences."""
    source = get_source(session, settings, name)
    if source.notice is None:
        raise NotFound(f"Source {name!r} has no NOTICE.")
    return PlainTextResponse(source.notice)


def _added(session: Session, settings: Settings, sent: Sent) -> str:
    """Keep the source that was sent, and give its name. Raises Refused, Conflict."""
    given = {key: value for key, value in sent.fields.items() if value != ""}
    new = validated(NewSource, given)
    places = [bool(sent.file), bool(new.hub_id), bool(new.folder)]
    if sum(places) != 1:
        raise Refused("Give one of three: a file, the id of a data set of the hub, a folder.")
    if sent.file:
        return add_upload(session, settings, new, sent.file_name, sent.file.file).name
    if new.folder:
        return add_folder(session, settings, new).name
    return add_hub(session, new).name

"""What the pages about sources show."""

from __future__ import annotations

from collections import Counter

from pydantic import BaseModel
from sqlmodel import Session

from app.calibration.service import get_set
from app.facets import Facet, vocabulary
from app.paging import page_of, page_within
from app.row_formats.formatters import FORMATTERS
from app.settings import Settings
from app.sources.catalogue import Source, SourceState, get_entry, get_source, list_sources
from app.sources.entry import SourceEntry
from app.sources.fetching import found_rows
from app.sources.previews import PAGE_ROWS, PreviewRow, preview
from app.sources.search import SourceQuery, matching, values_to_choose
from app.sources.service import SetUse, sets_that_use
from app.sources.store import SetAsideRow, load_set_aside, revisions

PAGE_SOURCES = 25
SHOWN_SET_ASIDE = 50


class SourceListView(BaseModel):
    """A page of the sources that were asked for. ``rows`` are those of every source that is
    here; ``choices`` the values of each facet that can be asked for; ``fetchable`` of the matching
    ones have no rows here yet."""

    sources: list[Source]
    query: SourceQuery
    choices: dict[Facet, dict[str, str]]
    matching: int
    fetchable: int
    total: int
    rows: int
    page: int
    pages: int


class FormatterChoice(BaseModel):
    """A formatter as a form offers it; ``usual`` are the columns taken when none are given."""

    name: str
    title: str
    columns: str
    usual: tuple[str, ...]


class Reason(BaseModel):
    """How many of the listed rows were set aside for one reason."""

    reason: str
    rows: int


class SourceView(BaseModel):
    """One source: its entry, its state, some rows, those set aside, who uses it."""

    source: Source
    entry: SourceEntry
    formatters: list[FormatterChoice]
    preview: list[PreviewRow]
    page: int
    pages: int
    set_aside: list[SetAsideRow]
    reasons: list[Reason]
    used_by: list[SetUse]
    revisions: int
    problem: str | None = None


class AddSourceView(BaseModel):
    """The form for a new source: what was typed, and what is wrong with it."""

    kind: str = "upload"
    fields: dict[str, str] = {}
    formatters: list[FormatterChoice]
    choices: dict[Facet, dict[str, str]]
    upload_bytes: int
    problem: str | None = None


def source_list(session: Session, settings: Settings, query: SourceQuery) -> SourceListView:
    """The catalogue, as far as a query asks for it."""
    sources = list_sources(session, settings)
    found = found_sources(session, sources, query)
    shown, page, pages = page_of(found, query.page, PAGE_SOURCES)
    return SourceListView(
        sources=shown,
        query=query,
        choices={facet: values_to_choose(sources, facet) for facet in Facet},
        matching=len(found),
        fetchable=sum(map(can_be_fetched, found)),
        total=len(sources),
        rows=sum(source.rows or 0 for source in sources),
        page=page,
        pages=pages,
    )


def found_sources(session: Session, sources: list[Source], query: SourceQuery) -> list[Source]:
    """The sources a query asks for. Raises NotFound for a set that is not there."""
    found = matching(sources, query)
    if not query.set:
        return found
    named = get_set(session, query.set).spec["sources"]
    return [source for source in found if source.name in named]


def can_be_fetched(source: Source) -> bool:
    """Whether a source is in use and its rows are not here."""
    return source.in_use and source.state in (SourceState.NOT_FETCHED, SourceState.FAILED)


def source_view(
    session: Session, settings: Settings, name: str, page: int = 1, problem: str | None = None
) -> SourceView:
    """One source. Raises NotFound."""
    source, entry = get_source(session, settings, name), get_entry(session, name)
    file = found_rows(entry, settings.sources_dir)
    page, pages = page_within(source.rows or 0, page, PAGE_ROWS)
    aside = load_set_aside(file) if file and entry.origin.kind != "starter" else []
    counted = Counter(row.reason for row in aside)
    return SourceView(
        source=source,
        entry=entry,
        formatters=formatter_choices(),
        preview=preview(file, page) if file else [],
        page=page,
        pages=pages,
        set_aside=aside[:SHOWN_SET_ASIDE],
        reasons=[Reason(reason=reason, rows=rows) for reason, rows in counted.most_common(10)],
        used_by=sets_that_use(session, settings, name),
        revisions=len(revisions(name, settings.sources_dir)),
        problem=problem,
    )


def add_source_view(
    settings: Settings, kind: str = "upload", fields: dict[str, str] | None = None,
    problem: str | None = None,
) -> AddSourceView:  # fmt: skip
    """The form for a new source."""
    return AddSourceView(
        kind=kind,
        fields=fields or {},
        formatters=formatter_choices(),
        choices={facet: vocabulary(facet) for facet in Facet},
        upload_bytes=settings.upload_bytes,
        problem=problem,
    )


def formatter_choices() -> list[FormatterChoice]:
    """Every formatter, as a form offers it."""
    return [
        FormatterChoice(name=name, title=rule.title, columns=rule.columns, usual=rule.usual)
        for name, rule in FORMATTERS.items()
    ]

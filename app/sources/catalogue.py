"""The catalogue of sources: what there is to compose from, where it is from, what is in it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import BaseModel, Field
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from app.errors import CompositionRefused, NotFound
from app.facets import Facet
from app.liveness import process_is_alive
from app.nearest import nearest
from app.settings import Settings
from app.sources.built_in import built_in_entries
from app.sources.entry import HubOrigin, Kind, SourceEntry, UploadOrigin
from app.sources.fetching import found_rows
from app.sources.models import SourceRecord
from app.sources.rows import RowsFile
from app.sources.starter_corpus import PACKS, pack_file
from app.sources.store import SourceManifest, load_manifest


class SourceState(StrEnum):
    """Whether a source's rows are here."""

    READY = "ready"
    NOT_FETCHED = "not fetched"
    FETCHING = "fetching"
    FAILED = "failed"


class Source(BaseModel):
    """A source of the catalogue. ``place`` is its hub id, file name or folder.

    ``revision`` to ``size_bytes`` are of the rows that are here, None before the first fetch;
    ``licenses`` and ``facets`` count rows by value. Before that ``tags`` say what its rows are to
    be labelled.
    """

    name: str
    title: str
    kind: Kind
    state: SourceState
    enabled: bool
    in_use: bool
    built_in: bool
    place: str
    subset: str | None = None
    split: str | None = None
    formatter: str
    columns: tuple[str, ...]
    tags: dict[Facet, str]
    license: str | None
    problem: str | None = None
    fetch_read: int | None = None
    revision: str | None = None
    commit: str | None = None
    sampling: str | None = None
    rows: int | None = None
    set_aside: int = 0
    repeated: int = 0
    size_bytes: int | None = None
    splits: dict[str, int] = {}
    licenses: dict[str, int] = {}
    facets: dict[Facet, dict[str, int]] = {facet: {} for facet in Facet}
    notice: str | None = Field(default=None, exclude=True)

    def values_of(self, facet: Facet) -> list[str]:
        """The values of a facet its rows carry, or are to carry."""
        counted = self.facets.get(facet) or {}
        tag = self.tags.get(facet)
        return [*counted] or ([tag] if tag else [])


def list_sources(session: Session, settings: Settings) -> list[Source]:
    """Every source: those that come with Calibrant, then those somebody added."""
    records = {record.name: record for record in session.exec(_records())}
    built_in = [_source(entry, records.get(name), settings) for name, entry in _built_in()]
    added = [record for name, record in records.items() if name not in built_in_entries()]
    return [*built_in, *(_source(entry_of(record), record, settings) for record in added)]


def get_source(session: Session, settings: Settings, name: str) -> Source:
    """A source by its name. Raises NotFound."""
    return _source(get_entry(session, name), session.get(SourceRecord, name), settings)


def get_entry(session: Session, name: str) -> SourceEntry:
    """The entry of a source. Raises NotFound with the nearest name."""
    record = session.get(SourceRecord, name)
    if record is not None:
        return entry_of(record)
    built_in = built_in_entries().get(name)
    if built_in is None:
        known = [*built_in_entries(), *session.exec(select(SourceRecord.name))]
        raise NotFound(f"There is no source {name!r}{nearest(name, known)}.")
    return built_in


def entries_of(session: Session, names: Iterable[str]) -> tuple[SourceEntry, ...]:
    """The entries of some sources, in their order. Raises NotFound, and CompositionRefused for
    one that is disabled."""
    entries = tuple(get_entry(session, name) for name in names)
    for entry in entries:
        if not entry.enabled:
            raise CompositionRefused(
                f"Source {entry.name!r} is disabled: enable it, or take it out of the set."
            )
    return entries


def entry_of(record: SourceRecord) -> SourceEntry:
    """The entry a record keeps."""
    return SourceEntry.model_validate(record.document)


def _records() -> SelectOfScalar[SourceRecord]:
    return select(SourceRecord).order_by(col(SourceRecord.created_at), col(SourceRecord.name))


def _built_in() -> list[tuple[str, SourceEntry]]:
    here = [name for name in PACKS if pack_file(name).is_file()]
    return [
        (name, entry)
        for name, entry in built_in_entries().items()
        if name in here or name not in PACKS
    ]


def _source(entry: SourceEntry, record: SourceRecord | None, settings: Settings) -> Source:
    document = entry if record is None else entry_of(record)
    shared = {
        "name": document.name,
        "title": document.title or document.name,
        "kind": document.origin.kind,
        "enabled": document.enabled,
        "built_in": document.name in built_in_entries(),
        "formatter": document.formatter,
        "columns": document.columns,
        "tags": document.tags,
        "license": document.license,
        **_place(document),
    }
    if document.name in PACKS:
        in_use = document.enabled and document.name in settings.corpus_packs
        pack = _pack(document.name)
        return Source(**{**shared, **pack, "state": SourceState.READY, "in_use": in_use})
    file = found_rows(document, settings.sources_dir)
    state = _state(record, file)
    found = _of_manifest(load_manifest(file)) if file else {}
    return Source(
        **shared,
        **found,
        state=state,
        in_use=document.enabled,
        problem=record.problem if record else None,
        fetch_read=record.fetch_read if record and state is SourceState.FETCHING else None,
    )


def _state(record: SourceRecord | None, file: RowsFile | None) -> SourceState:
    if record and process_is_alive(record.fetch_pid, record.fetch_started):
        return SourceState.FETCHING
    if record and (record.problem or (record.fetch_pid and file is None)):
        return SourceState.FAILED
    return SourceState.READY if file else SourceState.NOT_FETCHED


def _place(entry: SourceEntry) -> dict[str, str | None]:
    match entry.origin:
        case HubOrigin() as hub:
            return {"place": hub.id, "subset": hub.subset, "split": hub.split}
        case UploadOrigin() as upload:
            return {"place": upload.file}
        case origin if origin.kind == "folder":
            return {"place": str(origin.path)}
        case _:
            return {"place": "demo/corpus"}


def _of_manifest(manifest: SourceManifest) -> dict[str, object]:
    kept = ("revision", "commit", "sampling", "rows", "set_aside", "repeated", "size_bytes",
            "splits", "licenses", "facets")  # fmt: skip
    return {name: getattr(manifest, name) for name in kept}


def _pack(name: str) -> dict[str, object]:
    file = pack_file(name)
    return _described(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _described(file: Path, changed: int) -> dict[str, object]:  # noqa: ARG001, part of the key
    """What a starter pack holds; its ``notice`` is the pack's NOTICE."""
    content = file.read_bytes()
    table = pq.read_table(file, columns=["license", "split", *(facet.value for facet in Facet)])
    counts = {column: _sorted_counts(table[column].to_pylist()) for column in table.column_names}
    notice = file.parent / "NOTICE"
    return {
        "revision": hashlib.sha256(content).hexdigest(),
        "sampling": "every row",
        "size_bytes": len(content),
        "rows": table.num_rows,
        "splits": counts["split"],
        "licenses": counts["license"],
        "facets": {facet: counts[facet.value] for facet in Facet},
        "notice": notice.read_text(encoding="utf-8") if notice.is_file() else None,
    }


def _sorted_counts(values: list[str | None]) -> dict[str, int]:
    """How often each value stands, the most frequent first; equal ones by the alphabet."""
    counts = Counter(value for value in values if value is not None)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

"""A new source from what somebody gave: a file, a folder, the id of a data set of the hub."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, field_validator
from sqlmodel import Session

from app.artifacts import write_whole
from app.errors import Conflict, Refused
from app.facets import Facet
from app.row_files.file_kinds import COMPRESSIONS, kind_of
from app.row_files.raw_rows import RawRow, raw_rows
from app.row_files.unpacking import Limits
from app.row_formats.formatters import (
    FORMATTERS,
    format_row,
    known_formatter,
    require_formatter,
)
from app.row_formats.proposals import Proposal, label_columns, propose
from app.row_formats.turns import RowUnfit
from app.settings import Settings
from app.sources.entry import (
    FolderOrigin,
    HubOrigin,
    Origin,
    SourceEntry,
    SourceName,
    UploadOrigin,
    slug,
)
from app.sources.fetching import fetch_rows
from app.sources.local_files import folder_rows, original
from app.sources.models import SourceRecord
from app.sources.service import add, is_known
from app.sources.store import Progress
from app.validation import validated

LOOKED_AT = 50


class NewSource(BaseModel):
    """A source to add. Without a formatter the first rows propose one (of a file or folder); a
    name that is not given is made of the file's, the folder's or the data set's.

    One of ``hub_id``, ``folder`` and an uploaded file says where the rows are.
    """

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=80)] = ""
    title: Annotated[str, Field(max_length=200)] = ""
    hub_id: Annotated[str, Field(max_length=200)] = ""
    subset: Annotated[str, Field(max_length=200)] = ""
    split: Annotated[str, Field(max_length=200)] = ""
    revision: Annotated[str, Field(max_length=200)] = ""
    streaming: bool = False
    rows_limit: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    folder: Annotated[str, Field(max_length=4000)] = ""
    encoding: Annotated[str, Field(max_length=40)] = "utf-8"
    formatter: Annotated[str, Field(max_length=80)] = ""
    columns: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()
    params: dict[str, Any] = {}
    spoken_language: Annotated[str, Field(max_length=80)] = ""
    programming_language: Annotated[str, Field(max_length=80)] = ""
    domain: Annotated[str, Field(max_length=80)] = ""
    license: Annotated[str, Field(max_length=200)] = ""
    set_aside_limit: Annotated[int, Field(ge=0)] | None = None

    @field_validator("columns", mode="before")
    @classmethod
    def _columns_by_comma(cls, value: Any) -> Any:
        return by_comma(value) if isinstance(value, str) else value

    @property
    def tags(self) -> dict[Facet, str]:
        """The labels for rows that carry none."""
        given = {facet: getattr(self, facet.value).strip() for facet in Facet}
        return {facet: value for facet, value in given.items() if value}


def by_comma(text: str) -> list[str]:
    """``a, b`` as its parts."""
    return [part.strip() for part in text.split(",") if part.strip()]


def add_upload(
    session: Session,
    settings: Settings,
    new: NewSource,
    file_name: str,
    content: BinaryIO,
    progress: Progress | None = None,
) -> SourceEntry:
    """Keep a file and its rows under a name. Nothing is kept of a file that is refused.

    Raises Refused with the place of what is wrong, Conflict for a name that is taken, DiskFull.
    """
    kind_of(file_name)
    name = _free_name(session, new, _stem(file_name))
    sha256 = _sha256(content)
    kept = original(name, sha256, settings.sources_dir)
    try:
        write_whole(kept, lambda target: shutil.copyfileobj(content, target, 1 << 20))
        origin = UploadOrigin(file=file_name, sha256=sha256, encoding=new.encoding)
        raw = raw_rows(kept, file_name, new.encoding, _limits(settings))
        first = list(islice(raw, LOOKED_AT))
        entry = _entry(new, name, origin, _proposal(file_name, new, first), _first_cells(first))
        fetch_rows(entry, settings.sources_dir, progress, settings)
        add(session, entry)
    except BaseException:
        _leave_nothing(session, settings, name)
        raise
    return entry


def add_folder(
    session: Session, settings: Settings, new: NewSource, progress: Progress | None = None
) -> SourceEntry:
    """Keep the rows of a folder of this machine, or of one file of it. Raises as
    :func:`add_upload`."""
    path = Path(new.folder).expanduser()
    if not path.is_absolute():
        raise Refused(f"Give the whole path of the folder: {new.folder!r} is relative.")
    name = _free_name(session, new, _stem(path.name))
    origin = FolderOrigin(path=path, encoding=new.encoding)
    raw = (one.row for one in folder_rows(origin, _limits(settings)))
    first = list(islice(raw, LOOKED_AT))
    entry = _entry(new, name, origin, _proposal(path.name, new, first), _first_cells(first))
    try:
        fetch_rows(entry, settings.sources_dir, progress, settings)
        add(session, entry)
    except BaseException:
        _leave_nothing(session, settings, name)
        raise
    return entry


def add_hub(session: Session, new: NewSource, proposal: Proposal | None = None) -> SourceEntry:
    """Keep the entry of a data set of the hub; its rows are fetched later. Without columns the
    formatter's usual ones are taken; the fetch names the nearest where one is not there.

    Raises Refused, and Conflict for a name that is taken.
    """
    given: dict[str, Any] = {"id": new.hub_id, "streaming": new.streaming}
    for key in ("subset", "split", "revision", "rows_limit"):
        if value := getattr(new, key):
            given[key] = value
    origin = validated(HubOrigin, given)
    if proposal is None and not new.formatter:
        raise Refused(f"Say the formatter of the data set; there are: {', '.join(FORMATTERS)}.")
    if proposal is None and not new.columns:
        new = new.model_copy(update={"columns": known_formatter(new.formatter).usual})
    name = _free_name(session, new, new.hub_id.rpartition("/")[2])
    entry = _entry(new, name, origin, proposal)
    add(session, entry)
    return entry


def _first_cells(first: Sequence[RawRow]) -> list[Mapping[str, Any]]:
    return [row.cells for row in first if row.cells is not None]


def _proposal(where: str, new: NewSource, first: list[RawRow]) -> Proposal | None:
    """What the first rows ask for, where the person did not say it. Raises Refused."""
    if new.formatter:
        known_formatter(new.formatter)
    if new.formatter and new.columns:
        return None
    found = propose(_first_cells(first), new.formatter or None)
    if found is None:
        raise Refused(_why_none(where, new, first))
    return found


def _why_none(where: str, new: NewSource, first: list[RawRow]) -> str:
    if not first:
        return f"{where} has no rows."
    broken = next((row for row in first if row.problem), None)
    if broken is not None and all(row.cells is None for row in first):
        return f"{where}: no row can be read: row {broken.number}: {broken.problem}."
    names = list(dict.fromkeys(str(name) for row in first for name in row.cells or ()))
    asked = f"The formatter {new.formatter!r} fits" if new.formatter else "No formatter fits"
    none = " none of" if new.formatter else ""
    unfit = _why_unfit(first, names)
    if unfit:
        return f"{where}: no row fits: {unfit}."
    return f"{where}: {asked}{none} the columns {', '.join(names[:30])}: say formatter and columns."


def _why_unfit(first: list[RawRow], names: list[str]) -> str:
    """Why the first row is no text, where a file has but one column to read."""
    if len(names) != 1:
        return ""
    row = next(row for row in first if row.cells is not None)
    try:
        format_row("raw_text", names, {}, row.cells or {})
    except RowUnfit as unfit:
        return f"row {row.number}: {unfit}"
    return ""


def _entry(
    new: NewSource,
    name: str,
    origin: Origin,
    proposal: Proposal | None,
    cells: Sequence[Mapping[str, Any]] = (),
) -> SourceEntry:
    formatter = new.formatter or (proposal.formatter if proposal else "")
    columns = new.columns or (proposal.columns if proposal else ())
    require_formatter(formatter, columns, new.params)
    document = {
        "name": name,
        "title": new.title or name,
        "origin": origin,
        "columns": columns,
        "formatter": formatter,
        "params": new.params,
        "label_columns": proposal.label_columns if proposal else label_columns(cells),
        "tags": new.tags,
        "license": new.license or None,
        "set_aside_limit": new.set_aside_limit,
    }
    return validated(SourceEntry, document)


def _sha256(content: BinaryIO) -> str:
    digest = hashlib.sha256()
    while chunk := content.read(1 << 20):
        digest.update(chunk)
    content.seek(0)
    return digest.hexdigest()


def _leave_nothing(session: Session, settings: Settings, name: str) -> None:
    """Take away what was written of a source that is refused; one of the same name that somebody
    added meanwhile stays."""
    session.rollback()
    if session.get(SourceRecord, name) is None:
        shutil.rmtree(settings.sources_dir / name, ignore_errors=True)


def _free_name(session: Session, new: NewSource, suggestion: str) -> str:
    """The name asked for, or one made of the file's. Raises Conflict when it is taken."""
    name = new.name or slug(suggestion)
    validated(_Name, {"name": name})
    if is_known(session, name):
        raise Conflict(f"There is a source {name!r} already: choose another name.")
    return name


class _Name(BaseModel):
    name: SourceName


def _stem(file_name: str) -> str:
    path = Path(file_name)
    if path.suffix.lower() in COMPRESSIONS:
        path = path.with_suffix("")
    return path.stem or file_name


def _limits(settings: Settings) -> Limits:
    return Limits(settings.unpacked_bytes)

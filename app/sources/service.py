"""What can be done with sources: add, change, fetch, disable, delete; what a set uses is kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from sqlmodel import Session, select

from app.calibration.built_set import identities
from app.calibration.models import CalibrationSet
from app.errors import CalibrantError, Conflict, Refused
from app.liveness import process_is_alive
from app.nearest import nearest
from app.row_formats.formatters import require_formatter
from app.settings import Settings
from app.sources.built_in import built_in_entries
from app.sources.catalogue import get_entry
from app.sources.entry import SourceEntry
from app.sources.fetching import fetch_rows, found_rows
from app.sources.models import SourceRecord
from app.sources.relabelling import differs_in_labels_alone, relabelled
from app.sources.rows import RowsFile
from app.sources.store import Progress
from app.validation import validated

# What a person may change of a source; its origin makes it another source.
CHANGEABLE = (
    "title", "columns", "formatter", "params", "label_columns", "tags", "license", "enabled",
    "set_aside_limit",
)  # fmt: skip

# Their addresses are pages: /sources/new.
RESERVED = frozenset({"new", "fetch"})


class SetUse(BaseModel):
    """A set that uses a source, in words: a saved one with its id, or a built one."""

    what: str
    set_id: str | None = None


def add(session: Session, entry: SourceEntry) -> SourceRecord:
    """Keep a new entry. Raises Conflict for a name that is taken, Refused for a formatter that
    cannot be."""
    require_formatter(entry.formatter, entry.columns, entry.params)
    if entry.name in RESERVED:
        raise Refused(f"{entry.name!r} is an address of its own: choose another name.")
    if is_known(session, entry.name):
        raise Conflict(f"There is a source {entry.name!r} already: choose another name.")
    return keep(session, entry)


def is_known(session: Session, name: str) -> bool:
    """Whether the catalogue has a source of this name."""
    return name in built_in_entries() or session.get(SourceRecord, name) is not None


def add_all(session: Session, entries: list[SourceEntry]) -> list[str]:
    """Keep those entries of a set that the catalogue has not, and give their names."""
    new = []
    for entry in entries:
        if not is_known(session, entry.name):
            add(session, entry)
            new.append(entry.name)
    return new


def change(session: Session, settings: Settings, name: str, changes: dict[str, Any]) -> SourceEntry:
    """Change some of what an entry says, and its rows with it where they are here.

    New tags are written on the rows at once; another formatter reads a file or folder again, and
    leaves a data set of the hub to be fetched. Old revisions stay for the sets built of them.
    Raises NotFound, Refused.
    """
    old = get_entry(session, name)
    for field in changes:
        if field not in CHANGEABLE:
            raise Refused(f"{field!r} of a source cannot be changed{nearest(field, CHANGEABLE)}.")
    new = _changed(old, changes)
    if old.origin.kind == "starter" and new.recipe != old.recipe:
        raise Refused(f"{name!r} is of the starter corpus: its rows carry their own labels.")
    require_formatter(new.formatter, new.columns, new.params)
    _remake(old, new, settings)
    keep(session, new)
    return new


def fetch(
    session: Session, settings: Settings, name: str, progress: Progress | None = None
) -> RowsFile:
    """Fetch a source's rows anew in this process, and keep what went wrong if anything did."""
    entry = get_entry(session, name)
    record = session.get(SourceRecord, name) or keep(session, entry)
    try:
        file = fetch_rows(entry, settings.sources_dir, progress, settings)
    except CalibrantError as error:
        record.problem = error.sentence[:4000]
        session.add(record)
        session.commit()
        raise
    record.problem, record.fetch_pid, record.fetch_started = None, None, None
    session.add(record)
    session.commit()
    return file


def keep(session: Session, entry: SourceEntry) -> SourceRecord:
    """The record of an entry, as the entry says now."""
    record = session.get(SourceRecord, entry.name)
    document = entry.model_dump(mode="json")
    if record is None:
        record = SourceRecord(name=entry.name, kind=entry.origin.kind, document=document)
    record.document = document
    session.add(record)
    session.commit()
    return record


def is_fetching(record: SourceRecord | None) -> bool:
    """Whether a process fetches the source now."""
    return record is not None and process_is_alive(record.fetch_pid, record.fetch_started)


def delete(session: Session, settings: Settings, name: str) -> None:
    """Take a source and its rows away.

    Raises NotFound, and Conflict for one that a set uses, that is being fetched, or that comes
    with Calibrant.
    """
    get_entry(session, name)
    if name in built_in_entries():
        raise Conflict(f"{name!r} comes with Calibrant: disable it to keep it out of new sets.")
    record = session.get(SourceRecord, name)
    if is_fetching(record):
        raise Conflict(f"{name!r} is being fetched: delete it when that is done.")
    if users := sets_that_use(session, settings, name):
        others = f" and {len(users) - 3} more" if len(users) > 3 else ""
        named = ", ".join(user.what for user in users[:3])
        raise Conflict(
            f"{name!r} is used by {named}{others}: their rows would be lost. "
            "Disable it to keep it out of new sets."
        )
    if record is not None:
        session.delete(record)
        session.commit()
    shutil.rmtree(settings.sources_dir / name, ignore_errors=True)


def sets_that_use(session: Session, settings: Settings, name: str) -> list[SetUse]:
    """The saved sets whose composition names a source, and the sets built of it."""
    saved = session.exec(select(CalibrationSet)).all()
    named = [
        SetUse(what=f"the set {one.name!r}", set_id=one.id)
        for one in saved
        if name in one.spec.get("sources", ())
    ]
    return [*named, *_built_of(settings.sets_dir, name)]


def _built_of(sets_dir: Path, name: str) -> Iterator[SetUse]:
    for directory, identity in identities(sets_dir):
        sources = identity.get("sources", [])
        if any(name in (one.get("source"), one.get("name")) for one in sources):
            yield SetUse(what=f"the built set {directory.name}")


def _changed(entry: SourceEntry, changes: dict[str, Any]) -> SourceEntry:
    return validated(SourceEntry, {**entry.model_dump(), **changes})


def _remake(old: SourceEntry, new: SourceEntry, settings: Settings) -> None:
    """The rows of a changed entry, where they can be made here and now."""
    file = found_rows(old, settings.sources_dir)
    if new.recipe == old.recipe or file is None:
        return
    if differs_in_labels_alone(old, new):
        relabelled(new, file, settings.sources_dir)
    elif new.origin.kind != "hub":
        fetch_rows(new, settings.sources_dir, settings=settings)

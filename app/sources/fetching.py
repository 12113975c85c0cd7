"""Fetching a source: its rows from wherever they are to a revision on disk."""

from __future__ import annotations

import re
from pathlib import Path

from app.row_files.unpacking import Limits
from app.settings import Settings, get_settings
from app.sources.conversion import NumberedRows, converted
from app.sources.entry import COMMIT, FolderOrigin, HubOrigin, SourceEntry, StarterOrigin
from app.sources.hub import Hub
from app.sources.local_files import folder_revision, folder_rows, upload_rows
from app.sources.rows import MANIFEST, RowsFile, current_revision, rows_file
from app.sources.store import (
    Progress,
    load_manifest,
    make_current,
    place_of,
    revisions,
    write_revision,
)

EVERY_ROW = "every row"


def ensure_rows(
    entry: SourceEntry,
    sources_dir: Path,
    progress: Progress | None = None,
    settings: Settings | None = None,
) -> RowsFile:
    """The rows of an entry, fetched where they are not here yet.

    A revision that is here is used as it is, whatever the hub or the folder holds today, so that
    what is built of it stays the same. ``progress`` gets the rows read so far, and None for how
    many there will be. Raises Refused with the cause, HubUnreachable when the hub does not answer,
    TooManySetAside, DiskFull.
    """
    return found_rows(entry, sources_dir) or fetch_rows(entry, sources_dir, progress, settings)


def found_rows(entry: SourceEntry, sources_dir: Path) -> RowsFile | None:
    """The rows of an entry that are here: the current revision before others, then the newest;
    None when there are none made as the entry says."""
    if isinstance(entry.origin, StarterOrigin):
        return rows_file(entry.name)
    current = current_revision(entry.name, sources_dir)
    kept = sorted(revisions(entry.name, sources_dir), key=lambda file: file.revision == current)
    return next((file for file in reversed(kept) if _is_of(file, entry)), None)


def fetch_rows(
    entry: SourceEntry,
    sources_dir: Path,
    progress: Progress | None = None,
    settings: Settings | None = None,
) -> RowsFile:
    """Fetch an entry's rows anew, the hub's newest commit or the folder as it is now, and let new
    sets use them. Raises as :func:`ensure_rows`."""
    if isinstance(entry.origin, StarterOrigin):
        return rows_file(entry.name)
    settings = settings or get_settings()
    if isinstance(entry.origin, HubOrigin):
        return Hub.of(settings).patiently(
            lambda hub: _fetched_from_hub(entry, hub, sources_dir, progress)
        )
    commit, rows = _local_rows(entry, sources_dir, settings)
    return _kept(entry, commit, rows, EVERY_ROW, sources_dir, progress)


def _fetched_from_hub(
    entry: SourceEntry, hub: Hub, sources_dir: Path, progress: Progress | None
) -> RowsFile:
    assert isinstance(entry.origin, HubOrigin)
    found = hub.find(entry.origin)
    rows = hub.rows(entry, found)
    return _kept(entry, found.commit, rows, hub.sampling(entry.origin), sources_dir, progress)


def _local_rows(
    entry: SourceEntry, sources_dir: Path, settings: Settings
) -> tuple[str, NumberedRows]:
    limits = Limits(settings.unpacked_bytes)
    if isinstance(entry.origin, FolderOrigin):
        return folder_revision(entry.origin), folder_rows(entry.origin, limits)
    assert entry.origin.kind == "upload"
    return entry.origin.sha256, upload_rows(entry, entry.origin, sources_dir, limits)


def _kept(
    entry: SourceEntry,
    commit: str,
    rows: NumberedRows,
    sampling: str,
    sources_dir: Path,
    progress: Progress | None,
) -> RowsFile:
    """The revision of a commit: the one that is here, or a new one of these rows."""
    place = place_of(entry, commit, sources_dir)
    if place.path.with_name(MANIFEST).is_file():
        make_current(place, sources_dir)
        return place
    return write_revision(
        entry, commit, converted(entry, rows), sources_dir, sampling=sampling, progress=progress
    )


def _is_of(file: RowsFile, entry: SourceEntry) -> bool:
    """Whether a revision was made as an entry says, from the commit it names if it names one."""
    if not file.revision.endswith(f"-{entry.recipe}"):
        return False
    asked = entry.origin.revision if isinstance(entry.origin, HubOrigin) else None
    is_commit = asked is not None and re.fullmatch(COMMIT, asked)
    return not is_commit or load_manifest(file).commit == asked

"""Sources as a job is given them: held to the revision they were looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from app.errors import CompositionRefused
from app.sources.entry import HubOrigin, SourceEntry
from app.sources.fetching import ensure_rows
from app.sources.rows import RowsFile, pinned_file
from app.sources.starter_corpus import PACKS
from app.sources.store import load_manifest


def pinned_entries(files: Iterable[RowsFile]) -> list[SourceEntry]:
    """The entries that fetched rows were made of, data sets of the hub at their commit, so that a
    worker on another machine fetches the same. Packs of the starter corpus need none.

    Raises CompositionRefused for rows whose manifest cannot be read.
    """
    return [_pinned(file) for file in files if file.source not in PACKS]


def at_revision(entry: SourceEntry, revision: str | None) -> SourceEntry:
    """An entry of the catalogue held to one revision of its rows, a data set of the hub to its
    commit; as it is without one."""
    if revision is None or not isinstance(entry.origin, HubOrigin):
        return entry
    return _of_commit(entry, entry.origin, revision.partition("-")[0])


def fetch_missing(
    entries: Iterable[SourceEntry], sources_dir: Path, revisions: Mapping[str, str] | None = None
) -> None:
    """Fetch the entries whose rows are not here at the revision that is asked for.

    Raises as :func:`app.sources.fetching.ensure_rows`.
    """
    for entry in entries:
        revision = (revisions or {}).get(entry.name)
        if revision is None or not _is_here(entry.name, revision, sources_dir):
            ensure_rows(entry, sources_dir)


def _pinned(file: RowsFile) -> SourceEntry:
    manifest = load_manifest(file)
    entry = manifest.entry
    if not isinstance(entry.origin, HubOrigin):
        return entry
    return _of_commit(entry, entry.origin, manifest.commit)


def _of_commit(entry: SourceEntry, origin: HubOrigin, commit: str) -> SourceEntry:
    pinned = origin.model_copy(update={"revision": commit})
    return entry.model_copy(update={"origin": pinned})


def _is_here(source: str, revision: str, sources_dir: Path) -> bool:
    try:
        pinned_file(source, revision, sources_dir)
    except CompositionRefused:
        return False
    return True

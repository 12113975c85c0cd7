"""Sources as a job is given them: held to the revision they were looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.errors import CompositionRefused
from app.sources.entry import HubOrigin, SourceEntry
from app.sources.fetching import ensure_rows, found_rows
from app.sources.rows import RowsFile, pinned_file
from app.sources.starter_corpus import PACKS
from app.sources.store import load_manifest


@dataclass(frozen=True)
class Fetching:
    """How far the fetching of some sources is: ``read`` rows of ``source``, after ``done`` of
    ``total`` sources."""

    source: str
    read: int
    done: int
    total: int


TellFetching = Callable[[Fetching], None]


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
    entries: Iterable[SourceEntry],
    sources_dir: Path,
    revisions: Mapping[str, str] | None = None,
    tell: TellFetching | None = None,
) -> None:
    """Fetch the entries whose rows are not here at the revision that is asked for, and ``tell``
    how far each is.

    Raises as :func:`app.sources.fetching.ensure_rows`.
    """
    asked = revisions or {}
    missing = [one for one in entries if not _is_here(one, asked.get(one.name), sources_dir)]
    for number, entry in enumerate(missing):

        def progress(read: int, _: int | None, at: int = number, name: str = entry.name) -> None:
            if tell is not None:
                tell(Fetching(source=name, read=read, done=at, total=len(missing)))

        progress(0, None)
        ensure_rows(entry, sources_dir, progress)


def _pinned(file: RowsFile) -> SourceEntry:
    manifest = load_manifest(file)
    entry = manifest.entry
    if not isinstance(entry.origin, HubOrigin):
        return entry
    return _of_commit(entry, entry.origin, manifest.commit)


def _of_commit(entry: SourceEntry, origin: HubOrigin, commit: str) -> SourceEntry:
    pinned = origin.model_copy(update={"revision": commit})
    return entry.model_copy(update={"origin": pinned})


def _is_here(entry: SourceEntry, revision: str | None, sources_dir: Path) -> bool:
    if revision is None:
        return found_rows(entry, sources_dir) is not None
    try:
        pinned_file(entry.name, revision, sources_dir)
    except CompositionRefused:
        return False
    return True

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import CompositionRefused
from app.sources.entry import FolderOrigin, HubOrigin, SourceEntry
from app.sources.pinning import Fetching, fetch_missing, pinned_entries
from app.sources.rows import rows_file, rows_files
from app.sources.store import Row, write_revision

COMMIT = "d" * 40


def test_entries_of_a_job_name_the_commit_their_rows_are_of(tmp_path: Path) -> None:
    entry = SourceEntry(name="talks", origin=HubOrigin(id="somebody/talks", revision="main"))
    write_revision(entry, COMMIT, [Row(1, None, "words")], tmp_path)
    [pinned] = pinned_entries(rows_files(["permissive", "talks"], tmp_path))
    assert isinstance(pinned.origin, HubOrigin)
    assert (pinned.name, pinned.origin.revision) == ("talks", COMMIT)
    assert pinned.recipe == entry.recipe  # so that a fetch gives the same revision


def test_a_worker_without_the_rows_fetches_them(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("A short text about rivers.")
    origin = FolderOrigin(path=folder)
    entry = SourceEntry(name="texts", origin=origin, formatter="raw_text", columns=("text",))
    with pytest.raises(CompositionRefused, match="fetch it first"):
        rows_file("texts", tmp_path / "sources")
    fetch_missing([entry], tmp_path / "sources")
    file = rows_file("texts", tmp_path / "sources")
    assert file.rows == 1
    (folder / "a.txt").write_text("Another text.")
    fetch_missing([entry], tmp_path / "sources", {"texts": file.revision})
    assert rows_file("texts", tmp_path / "sources") == file


def test_it_is_told_which_source_is_fetched(tmp_path: Path) -> None:
    entries = []
    for name, count in (("few", 2), ("many", 300), ("here", 1)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "rows.jsonl").write_text("".join(f'{{"text": "{i}"}}\n' for i in range(count)))
        origin = FolderOrigin(path=folder)
        entries.append(
            SourceEntry(name=name, origin=origin, formatter="raw_text", columns=("text",))
        )
    fetch_missing(entries[2:], tmp_path / "sources")
    told: list[Fetching] = []
    fetch_missing(entries, tmp_path / "sources", tell=told.append)
    assert [(far.source, far.read, far.done, far.total) for far in told] == [
        ("few", 0, 0, 2),
        ("few", 2, 0, 2),
        ("many", 0, 1, 2),
        ("many", 256, 1, 2),
        ("many", 300, 1, 2),
    ]

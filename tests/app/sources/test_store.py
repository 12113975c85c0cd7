"""Rows on disk: whole or not there, and the same from the same entry."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from app.artifacts import DRAFT
from app.errors import CompositionRefused, Refused
from app.facets import Facet
from app.sources.entry import SourceEntry, UploadOrigin
from app.sources.rows import iterate_rows, load_rows, messages_of, rows_file, rows_files
from app.sources.starter_corpus import PACKS
from app.sources.store import (
    Row,
    SetAsideRow,
    TooManySetAside,
    load_manifest,
    load_set_aside,
    make_current,
    revisions,
    write_revision,
)

COMMIT = "a" * 64


def entry_of(**changes: object) -> SourceEntry:
    origin = UploadOrigin(file="talk.jsonl", sha256=COMMIT)
    given = {"name": "talk", "origin": origin, "tags": {Facet.SPOKEN_LANGUAGE: "fr"}} | changes
    return SourceEntry.model_validate(given)


def talk(number: int, words: str, **labels: str) -> Row:
    messages = [{"role": "user", "content": words}, {"role": "assistant", "content": "Oui."}]
    facets = {Facet(name): value for name, value in labels.items()}
    return Row(number, messages, f"{words}\n\nOui.", facets)


ROWS = [
    talk(1, "Un"),
    SetAsideRow(row=2, reason="it is empty"),
    talk(3, "Deux", spoken_language="de"),
    talk(4, "Un"),
    Row(5, None, "fn main() {}", {Facet.PROGRAMMING_LANGUAGE: "Rust"}),
]


def test_rows_carry_their_own_labels_or_else_the_tags(tmp_path: Path) -> None:
    file = write_revision(entry_of(license="MIT"), COMMIT, ROWS, tmp_path)
    rows = [row for batch in iterate_rows(file) for row in batch]
    assert [row["number"] for row in rows] == [1, 3, 5]
    assert [row["spoken_language"] for row in rows] == ["fr", "de", "fr"]
    assert [row["own_facets"] for row in rows] == ["", "spoken_language", "programming_language"]
    assert {row["license"] for row in rows} == {"MIT"}
    assert messages_of(rows[0]) == ROWS[0].messages
    assert messages_of(rows[2]) == [
        {"role": "user", "content": "Write Rust code."},
        {"role": "assistant", "content": "fn main() {}"},
    ]


def test_a_draft_that_a_kill_left_is_no_revision(tmp_path: Path) -> None:
    """Its manifest may be written already: only the renaming makes it whole."""
    file = write_revision(entry_of(), COMMIT, ROWS, tmp_path)
    whole = file.path.parent
    shutil.copytree(whole, whole.with_name(f"{DRAFT}killed"))
    assert [one.revision for one in revisions("talk", tmp_path)] == [file.revision]


def test_the_manifest_counts_every_row_once(tmp_path: Path) -> None:
    file = write_revision(entry_of(), COMMIT, ROWS, tmp_path)
    manifest = load_manifest(file)
    assert manifest.read == len(ROWS)
    assert manifest.rows + manifest.set_aside + manifest.repeated == manifest.read
    assert sum(manifest.splits.values()) == manifest.rows
    assert manifest.facets[Facet.SPOKEN_LANGUAGE] == {"fr": 2, "de": 1}
    assert load_set_aside(file) == [ROWS[1]]


def test_the_newest_revision_is_used_and_older_ones_stay(tmp_path: Path) -> None:
    old = write_revision(entry_of(), COMMIT, ROWS, tmp_path)
    new = write_revision(entry_of(tags={Facet.DOMAIN: "law"}), COMMIT, ROWS, tmp_path)
    assert old.revision != new.revision
    assert rows_file("talk", tmp_path) == new
    assert old.path.is_file()
    assert set(revisions("talk", tmp_path)) == {old, new}
    make_current(old, tmp_path)
    assert rows_file("talk", tmp_path) == old


def test_the_same_rows_have_the_same_bytes(tmp_path: Path) -> None:
    one = write_revision(entry_of(), COMMIT, ROWS, tmp_path / "one")
    other = write_revision(entry_of(title="Another title"), COMMIT, ROWS, tmp_path / "other")
    assert one.revision == other.revision
    assert one.path.read_bytes() == other.path.read_bytes()


def test_past_the_limit_nothing_is_kept(tmp_path: Path) -> None:
    with pytest.raises(TooManySetAside, match="row 2: it is empty"):
        write_revision(entry_of(set_aside_limit=0), COMMIT, ROWS, tmp_path)
    assert list((tmp_path / "talk").iterdir()) == []
    write_revision(entry_of(set_aside_limit=1), COMMIT, ROWS, tmp_path)


def test_a_source_of_which_nothing_fits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"None of the 1 rows of talk fits .* row 2: it is empty"):
        write_revision(entry_of(), COMMIT, [ROWS[1]], tmp_path)
    with pytest.raises(Refused, match="talk has no rows"):
        write_revision(entry_of(), COMMIT, [], tmp_path)


def test_a_fetch_that_breaks_leaves_what_was_there(tmp_path: Path) -> None:
    def broken():
        yield ROWS[0]
        raise KeyError

    kept = write_revision(entry_of(), COMMIT, ROWS, tmp_path)
    with pytest.raises(KeyError):
        write_revision(entry_of(), "b" * 64, broken(), tmp_path)
    assert rows_file("talk", tmp_path) == kept


def test_starter_packs_and_fetched_sources_are_read_alike(tmp_path: Path) -> None:
    write_revision(entry_of(), COMMIT, ROWS, tmp_path)
    files = rows_files((*PACKS, "talk"), tmp_path)
    rows = load_rows(files, split=None)
    assert len(rows) == sum(file.rows for file in files)
    assert all(messages_of(row)[-1]["role"] == "assistant" for row in rows)


def test_a_source_without_rows_says_so(tmp_path: Path) -> None:
    with pytest.raises(CompositionRefused, match="'talk' has no rows here yet"):
        rows_file("talk", tmp_path)
    with pytest.raises(CompositionRefused, match="'talk' has no rows here yet"):
        rows_file("talk")

"""Uploads and folders from their files to rows."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from app.errors import Refused
from app.facets import Facet
from app.settings import Settings
from app.sources.entry import SourceEntry
from app.sources.fetching import ensure_rows, fetch_rows, found_rows
from app.sources.local_files import original
from app.sources.rows import iterate_rows, messages_of, rows_file
from app.sources.store import load_manifest, load_set_aside

TALK = [
    {"prompt": "Bonjour", "answer": "Salut", "language": "French"},
    {"prompt": "", "answer": "alone"},
    {"prompt": "Write it", "answer": "fn main() {}", "language": "en"},
]


def upload(settings: Settings, content: bytes, **changes: object) -> SourceEntry:
    sha256 = hashlib.sha256(content).hexdigest()
    file = original("talk", sha256, settings.sources_dir)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    given = {
        "name": "talk",
        "origin": {"kind": "upload", "file": "talk.json", "sha256": sha256},
        "columns": ["prompt", "answer"],
        "formatter": "prompt_answer",
        "label_columns": {"spoken_language": "language"},
    }
    return SourceEntry.model_validate(given | changes)


def rows_of(entry: SourceEntry, settings: Settings) -> list[dict]:
    file = ensure_rows(entry, settings.sources_dir, settings=settings)
    return [row for batch in iterate_rows(file) for row in batch]


def test_an_upload_becomes_rows_with_labels(settings: Settings) -> None:
    entry = upload(settings, json.dumps(TALK).encode())
    seen: list[int] = []
    file = fetch_rows(entry, settings.sources_dir, lambda done, _: seen.append(done), settings)
    assert seen == [3]
    rows = rows_of(entry, settings)
    assert [row["spoken_language"] for row in rows] == ["fr", "en"]
    assert [row["number"] for row in rows] == [1, 3]
    assert messages_of(rows[0])[0] == {"role": "user", "content": "Bonjour"}
    [aside] = load_set_aside(file)
    assert (aside.row, aside.reason) == (2, "the prompt is empty")


def test_an_unknown_column_is_refused_with_the_nearest(settings: Settings) -> None:
    entry = upload(settings, json.dumps(TALK).encode(), columns=["promt", "answer"])
    with pytest.raises(Refused, match="no column 'promt'; the nearest is 'prompt'"):
        rows_of(entry, settings)
    assert found_rows(entry, settings.sources_dir) is None


def test_another_formatter_is_another_revision_of_the_same_file(settings: Settings) -> None:
    content = json.dumps(TALK).encode()
    entry = upload(settings, content)
    first = ensure_rows(entry, settings.sources_dir, settings=settings)
    text = entry.model_copy(update={"formatter": "raw_text", "columns": ("answer",)})
    second = ensure_rows(text, settings.sources_dir, settings=settings)
    assert second.rows == 3
    assert first.path.is_file()
    assert rows_file("talk", settings.sources_dir) == second
    assert ensure_rows(entry, settings.sources_dir, settings=settings) == first


def test_a_file_that_was_taken_away_is_named(settings: Settings) -> None:
    entry = upload(settings, b"[]")
    original("talk", entry.origin.sha256, settings.sources_dir).unlink()
    with pytest.raises(Refused, match="of talk is not kept here: upload it again"):
        rows_of(entry, settings)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "given"
    (place / "code").mkdir(parents=True)
    (place / "code" / "main.rs").write_text("fn main() {}\n")
    (place / "code" / "odd.bin").write_bytes(b"\x00\x01")
    (place / "notes.md").write_text("# Notes\n\nSome words.\n")
    (place / "gone.txt").write_bytes(b"caf\xe9")
    (place / ".hidden.txt").write_text("secret")
    (place / "link.txt").symlink_to("/etc/hostname")
    return place


def folder_entry(folder: Path) -> SourceEntry:
    return SourceEntry.model_validate(
        {
            "name": "mine",
            "origin": {"kind": "folder", "path": str(folder)},
            "columns": ["text"],
            "tags": {"domain": "code"},
        }
    )


def test_a_folder_is_read_file_by_file_and_bad_ones_are_set_aside(
    folder: Path, settings: Settings
) -> None:
    entry = folder_entry(folder)
    rows = rows_of(entry, settings)
    assert [row["text"] for row in rows] == ["fn main() {}", "# Notes\n\nSome words."]
    assert [row["programming_language"] for row in rows] == ["Rust", None]
    assert {row["domain"] for row in rows} == {"code"}
    file = rows_file("mine", settings.sources_dir)
    reasons = {aside.file: aside.reason for aside in load_set_aside(file)}
    assert set(reasons) == {"code/odd.bin", "gone.txt"}
    assert "no kind that can be read" in reasons["code/odd.bin"]
    assert "byte 4 (0xE9) is not UTF-8" in reasons["gone.txt"]


def test_a_changed_folder_is_a_new_revision_when_it_is_fetched_again(
    folder: Path, settings: Settings
) -> None:
    entry = folder_entry(folder)
    old = ensure_rows(entry, settings.sources_dir, settings=settings)
    (folder / "notes.md").write_text("Other words.\n")
    assert ensure_rows(entry, settings.sources_dir, settings=settings) == old
    new = fetch_rows(entry, settings.sources_dir, settings=settings)
    assert new.revision != old.revision
    assert old.path.is_file()
    assert fetch_rows(entry, settings.sources_dir, settings=settings) == new


def test_a_folder_that_is_not_there(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(Refused, match="There is no file or folder"):
        rows_of(folder_entry(tmp_path / "nothing"), settings)
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match="holds no files"):
        rows_of(folder_entry(tmp_path / "empty"), settings)


def test_the_manifest_says_what_it_was_made_of(folder: Path, settings: Settings) -> None:
    entry = folder_entry(folder)
    manifest = load_manifest(ensure_rows(entry, settings.sources_dir, settings=settings))
    assert manifest.entry == entry
    assert manifest.revision == f"{manifest.commit[:40]}-{entry.recipe}"
    assert manifest.facets[Facet.DOMAIN] == {"code": 2}
    assert manifest.sampling == "every row"

"""The rows of a source: where their file lies, and how they are read. One way for every kind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from app.errors import CompositionRefused
from app.facets import DOMAINS, SPOKEN_LANGUAGES
from app.sources.starter_corpus import PACKS, Split, pack_file

BATCH_ROWS = 256

# The layout of the data directory: <sources>/<name>/<revision>/…, written by app.sources.store.
ROWS = "rows.parquet"
MANIFEST = "source.json"
CURRENT = "current"


@dataclass(frozen=True)
class RowsFile:
    """The rows of one source at one revision: a Parquet file with the columns of
    ``app.sources.store.SCHEMA`` (a starter pack has no ``number``, ``messages``, ``own_facets``).

    ``revision`` changes when any row does.
    """

    source: str
    revision: str
    path: Path

    @property
    def rows(self) -> int:
        """How many there are, both splits."""
        rows: int = pq.read_metadata(self.path).num_rows
        return rows


def rows_file(source: str, sources_dir: Path | None = None) -> RowsFile:
    """The rows that new sets use of a source, by its name; without ``sources_dir`` of the starter
    corpus alone.

    Raises CompositionRefused for a source that is not there or was not fetched yet.
    """
    if source in PACKS:
        path = pack_file(source)
        if not path.is_file():
            raise CompositionRefused(f"The corpus has no pack {source!r}: {path} is not there.")
        status = path.stat()
        return RowsFile(source, _sha256(path, status.st_mtime_ns, status.st_size), path)
    revision = current_revision(source, sources_dir) if sources_dir else None
    if sources_dir is None or revision is None:
        raise CompositionRefused(
            f"Source {source!r} has no rows here yet: fetch it first, or take it out of the set."
        )
    return RowsFile(source, revision, sources_dir / source / revision / ROWS)


def rows_files(
    sources: Iterable[str],
    sources_dir: Path | None = None,
    revisions: Mapping[str, str] | None = None,
) -> list[RowsFile]:
    """The rows files of some sources, in their order, those in ``revisions`` as they were then.

    Raises CompositionRefused.
    """
    pinned = revisions or {}
    return [
        pinned_file(source, pinned[source], sources_dir)
        if source in pinned
        else rows_file(source, sources_dir)
        for source in sources
    ]


def pinned_file(source: str, revision: str, sources_dir: Path | None = None) -> RowsFile:
    """The rows of a source at one revision. Raises CompositionRefused when they are not here."""
    if source in PACKS:
        file = rows_file(source)
        if file.revision == revision:
            return file
    elif sources_dir is not None and (sources_dir / source / revision / MANIFEST).is_file():
        return RowsFile(source, revision, sources_dir / source / revision / ROWS)
    raise CompositionRefused(
        f"Source {source!r} is not here at revision {revision[:40]}: fetch that revision again."
    )


def current_revision(source: str, sources_dir: Path) -> str | None:
    """The revision that new sets use, None before the first fetch."""
    try:
        revision = (sources_dir / source / CURRENT).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    return revision if (sources_dir / source / revision / MANIFEST).is_file() else None


def iterate_rows(
    file: RowsFile, columns: Sequence[str] | None = None, batch_rows: int = BATCH_ROWS
) -> Iterator[list[dict[str, Any]]]:
    """The rows of a source in the order of its file, a batch at a time."""
    with pq.ParquetFile(file.path) as parquet:
        for batch in parquet.iter_batches(batch_rows, columns=columns):
            yield batch.to_pylist()


def load_rows(
    files: Iterable[RowsFile], split: Split | None = "calibration"
) -> list[dict[str, Any]]:
    """Rows of some sources in the order of their ids, one part of the split or (None) both."""
    rows = [row for file in files for batch in iterate_rows(file) for row in batch]
    wanted = [row for row in rows if split is None or row["split"] == split]
    return sorted(wanted, key=lambda row: row["id"])


def find_rows(files: Iterable[RowsFile], row_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The rows with some ids, by id: of the first source that has each, the sources in the order
    of their names.

    Ids are looked at first and the rest is read where they are, a batch at a time, so memory
    holds the rows found and not the sources.
    """
    wanted = pa.array(sorted(set(row_ids)), pa.string())
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(files, key=lambda file: file.source):
        with pq.ParquetFile(file.path) as parquet:
            for group in range(parquet.num_row_groups):
                ids = parquet.read_row_group(group, columns=["id"])["id"]
                if not pc.any(pc.is_in(ids, wanted)).as_py():
                    continue
                for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group]):
                    for row in batch.filter(pc.is_in(batch["id"], wanted)).to_pylist():
                        found.setdefault(row["id"], row)
    return found


def messages_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row as a conversation.

    One that came as a conversation is given as it is. A passage becomes the assistant's turn
    after a request that names what is wanted, so that the tokens fed are the language the row is
    labelled with, not an English sentence that names it (trap 2 of the seed's method).
    """
    if messages := row.get("messages"):
        conversation: list[dict[str, Any]] = json.loads(messages)
        return conversation
    return [
        {"role": "user", "content": _request(row)},
        {"role": "assistant", "content": row["text"]},
    ]


def _request(row: Mapping[str, Any]) -> str:
    if row["programming_language"]:
        return f"Write {row['programming_language']} code."
    topic = DOMAINS.get(row["domain"], row["domain"])
    language = SPOKEN_LANGUAGES.get(row["spoken_language"], row["spoken_language"])
    about = f" about {topic.lower()}" if topic else " a text"
    return f"Write{about} in {language}." if language else f"Write{about}."


@lru_cache(maxsize=64)
def _sha256(path: Path, changed: int, size: int) -> str:  # noqa: ARG001, the stamp is the key
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

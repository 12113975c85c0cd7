"""Fetched rows on disk: ``<sources>/<name>/<revision>/rows.parquet`` and its ``source.json``.

A revision is never changed. The manifest is written last, so a directory with one is whole.
``current`` beside the revisions names the one that new sets use; older ones stay for the sets
that were built of them.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ValidationError

from app.artifacts import new_directory, sync, write_model, write_text
from app.errors import CompositionRefused, Refused
from app.facets import Facet
from app.sources.entry import SourceEntry
from app.sources.rows import BATCH_ROWS, CURRENT, MANIFEST, ROWS, RowsFile
from app.sources.starter_corpus import split_of

SET_ASIDE = "set_aside.json"
FORMAT = 1
# Of the rows set aside so many are listed; all are counted.
LISTED_SET_ASIDE = 10_000

Progress = Callable[[int, int | None], None]

SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # a hash of the canonical content
        ("number", pa.int64()),  # position in the source, from 1
        ("messages", pa.string()),  # canonical JSON; null for plain text
        ("text", pa.string()),  # all the content's words, for search and audit
        ("spoken_language", pa.string()),
        ("programming_language", pa.string()),
        ("domain", pa.string()),
        ("own_facets", pa.string()),  # the facets the row itself named, by comma; others are tags
        ("source", pa.string()),
        ("license", pa.string()),
        ("own_license", pa.bool_()),  # whether the row itself named it
        ("split", pa.string()),
    ]
)


class SetAsideRow(BaseModel):
    """A row that was left out, with the reason. ``row`` counts from 1 in the whole source;
    ``file`` is one of the source's files, where it has several."""

    row: int
    reason: str
    file: str = ""


@dataclass(frozen=True)
class Row:
    """A row that fits: ``messages`` (None for plain text), all its words, its own labels."""

    number: int
    messages: list[dict[str, Any]] | None
    text: str
    facets: Mapping[Facet, str] = field(default_factory=dict)
    license: str | None = None

    @cached_property
    def conversation(self) -> str | None:
        """The messages as the JSON that is kept."""
        return None if self.messages is None else canonical(self.messages)

    @cached_property
    def id(self) -> str:
        """64 bits of a hash of the content, the same wherever the row stands."""
        content = self.text if self.conversation is None else self.conversation
        return hashlib.sha256(content.encode()).hexdigest()[:16]


class SourceManifest(BaseModel):
    """``source.json``: what one revision of a source holds and where it is from.

    ``entry`` is the entry it was made of; ``commit`` the hub's commit, or the SHA-256 of the
    files. ``read`` rows were looked at: ``rows`` are kept, ``set_aside`` do not fit, ``repeated``
    are the same as an earlier one. ``sampling`` says how the rows were drawn. ``sha256`` and
    ``size_bytes`` are of the rows file, ``packages`` the versions that may change its bytes.
    """

    format: int = FORMAT
    revision: str
    commit: str
    entry: SourceEntry
    sampling: str
    read: int
    rows: int
    set_aside: int
    repeated: int
    splits: dict[str, int]
    licenses: dict[str, int]
    facets: dict[Facet, dict[str, int]]
    sha256: str
    size_bytes: int
    packages: dict[str, str]


class TooManySetAside(Refused):
    """More rows do not fit the formatter than the person allowed."""


def revision_name(entry: SourceEntry, commit: str) -> str:
    """The name of a revision: where its rows are from and what was made of them."""
    return f"{commit[:40]}-{entry.recipe}"


def canonical(messages: list[dict[str, Any]]) -> str:
    """A conversation as the JSON that is kept and hashed."""
    return json.dumps(messages, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def write_revision(
    entry: SourceEntry,
    commit: str,
    rows: Iterable[Row | SetAsideRow],
    sources_dir: Path,
    *,
    sampling: str = "every row",
    progress: Progress | None = None,
    made_of: SourceManifest | None = None,
) -> RowsFile:
    """Keep a source's rows as a revision, and let new sets use it.

    Rows are written as they come, a batch at a time; of rows with the same content the first is
    kept. Of rows that a revision ``made_of`` kept, its counts of those it did not keep are taken
    over. Raises TooManySetAside past the entry's limit, Refused when no row fits, DiskFull;
    then nothing is kept.
    """
    file = place_of(entry, commit, sources_dir)
    with new_directory(file.path.parent) as draft:
        tally = _write_rows(draft, entry, rows, progress)
        manifest = _manifest(draft / ROWS, entry, commit, sampling, tally)
        if made_of is not None:
            counts = {name: getattr(made_of, name) for name in ("read", "set_aside", "repeated")}
            manifest = manifest.model_copy(update=counts)
        write_model(draft / MANIFEST, manifest)
    make_current(file, sources_dir)
    return file


def place_of(entry: SourceEntry, commit: str, sources_dir: Path) -> RowsFile:
    """Where the rows of an entry at a commit are, or would be."""
    revision = revision_name(entry, commit)
    return RowsFile(entry.name, revision, sources_dir / entry.name / revision / ROWS)


def make_current(file: RowsFile, sources_dir: Path) -> None:
    """Let new sets use a revision."""
    write_text(sources_dir / file.source / CURRENT, file.revision + "\n")


def revisions(source: str, sources_dir: Path) -> list[RowsFile]:
    """Every whole revision of a source, the oldest first."""
    manifests = (sources_dir / source).glob(f"[!.]*/{MANIFEST}")
    places = sorted(manifests, key=lambda file: file.stat().st_mtime_ns)
    return [RowsFile(source, place.parent.name, place.with_name(ROWS)) for place in places]


def load_manifest(file: RowsFile) -> SourceManifest:
    """What a fetched revision holds. Raises CompositionRefused when it cannot be read."""
    place = file.path.with_name(MANIFEST)
    try:
        return SourceManifest.model_validate_json(place.read_bytes())
    except (OSError, ValidationError) as error:
        raise CompositionRefused(
            f"The manifest of source {file.source!r}, {place}, cannot be read: fetch it again."
        ) from error


def load_set_aside(file: RowsFile) -> list[SetAsideRow]:
    """The rows of a revision that were left out, the first ``LISTED_SET_ASIDE`` of them."""
    place = file.path.with_name(SET_ASIDE)
    return [SetAsideRow.model_validate(one) for one in json.loads(place.read_bytes())]


@dataclass
class _Tally:
    """Sums over the rows as they are written."""

    limit: int | None
    read: int = 0
    rows: int = 0
    repeated: int = 0
    set_aside: int = 0
    listed: list[SetAsideRow] = field(default_factory=list)
    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def leave_out(self, row: SetAsideRow) -> None:
        """Count a row that does not fit. Raises TooManySetAside."""
        self.set_aside += 1
        if len(self.listed) < LISTED_SET_ASIDE:
            self.listed.append(row)
        if self.limit is not None and self.set_aside > self.limit:
            where = f"{row.file}, row {row.row}" if row.file else f"row {row.row}"
            raise TooManySetAside(
                f"More than {self.limit:,} rows do not fit, which is the limit that was set; "
                f"the last is {where}: {row.reason}."
            )

    def keep(self, entries: list[dict[str, Any]]) -> None:
        """Count rows that were written."""
        self.rows += len(entries)
        for column in ("split", "license", *(facet.value for facet in Facet)):
            values = (entry[column] for entry in entries)
            known = self.counts.setdefault(column, Counter())
            known.update(value for value in values if value is not None)

    def sorted(self, column: str) -> dict[str, int]:
        """How often each value stands, the most frequent first; equal ones by the alphabet."""
        counts = self.counts.get(column, Counter())
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _write_rows(
    draft: Path,
    entry: SourceEntry,
    rows: Iterable[Row | SetAsideRow],
    progress: Progress | None,
) -> _Tally:
    tally, seen = _Tally(entry.set_aside_limit), set[str]()
    stream = iter(rows)
    with pq.ParquetWriter(draft / ROWS, SCHEMA, compression="zstd") as writer:
        while batch := list(islice(stream, BATCH_ROWS)):
            entries = []
            for row in batch:
                tally.read += 1
                if isinstance(row, SetAsideRow):
                    tally.leave_out(row)
                elif row.id in seen:
                    tally.repeated += 1
                else:
                    seen.add(row.id)
                    entries.append(_columns(entry, row))
            tally.keep(entries)
            writer.write_table(pa.Table.from_pylist(entries, schema=SCHEMA))
            if progress is not None:
                progress(tally.read, None)
    if not tally.rows:
        raise Refused(_nothing_fits(entry, tally))
    sync(draft / ROWS)
    listed = [row.model_dump() for row in tally.listed]
    write_text(draft / SET_ASIDE, json.dumps(listed, ensure_ascii=False, indent=1) + "\n")
    return tally


def _columns(entry: SourceEntry, row: Row) -> dict[str, Any]:
    return {
        "id": row.id,
        "number": row.number,
        "messages": row.conversation,
        "text": row.text,
        **{facet.value: row.facets.get(facet) or entry.tags.get(facet) for facet in Facet},
        "own_facets": ",".join(facet.value for facet in Facet if row.facets.get(facet)),
        "source": entry.name,
        "license": row.license or entry.license,
        "own_license": bool(row.license),
        "split": split_of(row.id),
    }


def _nothing_fits(entry: SourceEntry, tally: _Tally) -> str:
    if not tally.read:
        return f"{entry.name} has no rows."
    first = tally.listed[0]
    return (
        f"None of the {tally.read:,} rows of {entry.name} fits the formatter "
        f"{entry.formatter!r}: row {first.row}: {first.reason}."
    )


def _manifest(
    file: Path, entry: SourceEntry, commit: str, sampling: str, tally: _Tally
) -> SourceManifest:
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return SourceManifest(
        revision=revision_name(entry, commit),
        commit=commit,
        entry=entry,
        sampling=sampling,
        read=tally.read,
        rows=tally.rows,
        set_aside=tally.set_aside,
        repeated=tally.repeated,
        splits=tally.sorted("split"),
        licenses=tally.sorted("license"),
        facets={facet: tally.sorted(facet.value) for facet in Facet},
        sha256=sha256,
        size_bytes=file.stat().st_size,
        packages={name: version(name) for name in ("datasets", "pyarrow")},
    )

"""The rows of a file as they stand in it: JSONL, JSON, CSV, Parquet, plain text."""

from __future__ import annotations

import csv
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from app.errors import Refused
from app.facets import Facet
from app.row_files.file_kinds import FileKind, kind_of, require_truthful
from app.row_files.json_arrays import array_elements
from app.row_files.unpacking import (
    LONGEST_LINE,
    Limits,
    NotText,
    Stream,
    lines,
    require_encoding,
    unpacked,
)

# Plain text has no rows: whole paragraphs are put together up to this many characters, about two
# thousand tokens.
PASSAGE = 8_000
PARQUET_BATCH = 64
# A column's dictionary can hold one huge value that every row names: unpacked it would be there
# once for each row of a batch.
BATCH_BYTES = 500_000_000
MOST_COLUMNS = 2_000


@dataclass(frozen=True)
class RawRow:
    """A row as it stands in its file: cells by column, or why it cannot be read. ``number`` counts
    from 1 in the file."""

    number: int
    cells: Mapping[str, Any] | None
    problem: str | None = None


def raw_rows(path: Path, name: str, encoding: str, limits: Limits) -> Iterator[RawRow]:
    """The rows of a file, as they are read. ``name`` tells its kind and is what refusals call it.

    A row that cannot be read has a problem and does not stop the others. Raises Refused for a
    file that cannot be read at all, NotText for a wrong encoding where rows cannot be told apart.
    """
    kind = kind_of(name)
    require_encoding(encoding)
    if kind.content == "parquet":
        yield from _parquet_file(path, kind, name, limits)
        return
    with unpacked(path, kind, name, limits) as stream:
        match kind.content:
            case "jsonl":
                yield from _json_lines(stream, encoding, name)
            case "json":
                yield from _json_document(stream, encoding, name)
            case "csv":
                yield from _csv_rows(stream, encoding, name, kind.separator)
            case _:
                yield from _passages(stream, encoding, name, kind.programming_language)


def _json_lines(stream: Stream, encoding: str, name: str) -> Iterator[RawRow]:
    number = 0
    for line in lines(stream, encoding, name):
        if line.problem is None and not line.text.strip():
            continue
        number += 1
        if line.problem is not None:
            yield RawRow(number, None, f"line {line.number:,}: {line.problem}")
            continue
        try:
            yield _object(number, json.loads(line.text), f"line {line.number:,} ")
        except ValueError as error:
            yield RawRow(number, None, f"line {line.number:,} is not JSON: {error}")
        except RecursionError:
            yield RawRow(number, None, f"line {line.number:,} is nested too deeply")


def _json_document(stream: Stream, encoding: str, name: str) -> Iterator[RawRow]:
    for number, element in enumerate(array_elements(stream, encoding, name), start=1):
        yield _object(number, element, "it ")


def _object(number: int, value: Any, what: str) -> RawRow:
    if isinstance(value, dict):
        return RawRow(number, value)
    return RawRow(number, None, f"{what}is no object with columns but {type(value).__name__}")


def _csv_rows(stream: Stream, encoding: str, name: str, separator: str | None) -> Iterator[RawRow]:
    texts = _sound_lines(stream, encoding, name)
    first = next(texts, None)
    if first is None:
        raise Refused(f"{name} is empty: its first line names the columns.")
    separator = separator or max(",;\t|", key=first.count)
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader(chain([first], texts), delimiter=separator)
    header = _next_cells(reader, name) or []
    _require_header(header, name)
    number = 0
    while (cells := _next_cells(reader, name)) is not None:
        if not cells:
            continue
        number += 1
        if len(cells) != len(header):
            yield RawRow(number, None, f"it has {len(cells):,} cells; the header has {len(header)}")
        else:
            yield RawRow(number, dict(zip(header, cells, strict=True)))


def _next_cells(reader: Any, name: str) -> list[str] | None:
    """The next row of a table, None at its end. Raises Refused."""
    try:
        cells: list[str] | None = next(reader, None)
    except csv.Error as error:
        said = str(error).partition(" - ")[0]
        raise Refused(f"{name}, line {reader.line_num:,}: {said}.") from error
    return cells


def _require_header(header: list[str], name: str) -> None:
    if not header or any(not column.strip() for column in header):
        raise Refused(f"{name}, line 1: a column has no name.")
    if repeated := sorted({column for column in header if header.count(column) > 1}):
        raise Refused(f"{name}, line 1: two columns are called {repeated[0]!r}.")
    if len(header) > MOST_COLUMNS:
        raise Refused(f"{name}, line 1: {len(header):,} columns; {MOST_COLUMNS:,} are the most.")


def _sound_lines(stream: Stream, encoding: str, name: str) -> Iterator[str]:
    """Lines with their ends, for formats whose rows may span lines. Raises NotText."""
    for line in lines(stream, encoding, name):
        if line.problem is not None:
            raise NotText(f"{name}, line {line.number:,}: {line.problem}.")
        yield line.text + "\n"


def _passages(stream: Stream, encoding: str, name: str, language: str | None) -> Iterator[RawRow]:
    """Whole paragraphs up to ``PASSAGE`` characters a row; a longer paragraph is cut at lines, a
    longer line is a row of its own."""
    labels = {Facet.PROGRAMMING_LANGUAGE.value: language} if language else {}
    held, number = "", 0
    for paragraph in _paragraphs(_sound_lines(stream, encoding, name)):
        if held and len(held) + len(paragraph) > PASSAGE:
            number += 1
            yield RawRow(number, {"text": held.strip("\n"), **labels})
            held = ""
        held += paragraph
    if held.strip():
        yield RawRow(number + 1, {"text": held.strip("\n"), **labels})


def _paragraphs(texts: Iterator[str]) -> Iterator[str]:
    held = ""
    for text in texts:
        if held and (len(held) + len(text) > PASSAGE or (not text.strip() and held.strip())):
            yield held + (text if not text.strip() else "")
            held = "" if not text.strip() else text
        else:
            held += text
    if held:
        yield held


def _parquet_file(path: Path, kind: FileKind, name: str, limits: Limits) -> Iterator[RawRow]:
    """Parquet is read from its end, so a packed one is unpacked to a file of its own first."""
    if kind.compression is None:
        with path.open("rb") as start:
            require_truthful(kind, start.read(4), name)
        yield from _parquet_rows(path, name, limits)
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "rows.parquet"
        with unpacked(path, kind, name, limits) as stream, plain.open("wb") as target:
            shutil.copyfileobj(stream, target, 1 << 20)
        yield from _parquet_rows(plain, name, limits)


def _parquet_rows(path: Path, name: str, limits: Limits) -> Iterator[RawRow]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
            if sum(group.total_byte_size for group in groups) > limits.unpacked:
                raise Refused(
                    f"{name} unpacks to more than {limits.unpacked:,} bytes, which is the limit "
                    "(CALIBRANT_UNPACKED_BYTES)."
                )
            for batch in file.iter_batches(batch_rows(file.metadata)):
                for cells in batch.to_pylist():
                    number += 1
                    yield RawRow(number, cells)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        said = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
        raise Refused(
            f"{name} cannot be read as Parquet after row {number:,}: {said[:200]}."
        ) from error


def batch_rows(metadata: Any) -> int:
    """Rows to read of a Parquet file at once, so that a batch holds no more than ``BATCH_BYTES``
    even where every value of a column is as large as the column."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    largest = max((column.total_uncompressed_size for column in columns), default=1)
    return max(1, min(PARQUET_BATCH, BATCH_BYTES // max(1, largest)))

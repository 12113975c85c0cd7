"""From rows as they stand in a source to rows that fit, or are set aside with the reason."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from app.errors import Refused
from app.nearest import nearest
from app.row_files.raw_rows import RawRow
from app.row_formats.formatters import FORMATTERS, format_row, require_formatter
from app.row_formats.labels import own_labels
from app.row_formats.turns import RowUnfit
from app.sources.entry import SourceEntry
from app.sources.store import Row, SetAsideRow

# Rows looked at before a column that none of them has is called unknown.
LOOKED_AT = 50


@dataclass(frozen=True)
class NumberedRow:
    """A raw row with its place in the whole source, and the file of the source it is in."""

    number: int
    row: RawRow
    file: str = ""


NumberedRows = Iterable[NumberedRow]


def converted(entry: SourceEntry, rows: NumberedRows) -> Iterator[Row | SetAsideRow]:
    """Each row as a conversation with its labels, or set aside.

    Raises Refused for a formatter that cannot be, and for a column that none of the first rows
    has, with the nearest name.
    """
    require_formatter(entry.formatter, entry.columns, entry.params)
    stream = iter(rows)
    first = list(islice(stream, LOOKED_AT))
    if known := _columns_of(first):
        require_columns(entry, known)
    for row in chain(first, stream):
        yield _converted(entry, row)


def require_columns(entry: SourceEntry, known: Collection[str]) -> None:
    """Raise Refused, with the nearest name, for a column of the entry that is not known."""
    for column in columns_read(entry):
        if column not in known:
            raise Refused(
                f"{entry.name} has no column {column!r}{nearest(column, known)}; "
                f"it has: {', '.join(list(known)[:30])}."
            )


def columns_read(entry: SourceEntry) -> list[str]:
    """The columns an entry cannot do without."""
    read = FORMATTERS[entry.formatter].reads or entry.columns
    return list(dict.fromkeys((*read, *entry.label_columns.values())))


def _columns_of(rows: NumberedRows) -> list[str]:
    """The columns that any of some rows has."""
    seen: dict[str, None] = {}
    for one in rows:
        seen.update(dict.fromkeys(str(name) for name in one.row.cells or ()))
    return list(seen)


def _converted(entry: SourceEntry, given: NumberedRow) -> Row | SetAsideRow:
    cells = given.row.cells
    try:
        if cells is None:
            raise RowUnfit(given.row.problem or "it cannot be read")
        made = format_row(entry.formatter, entry.columns, entry.params, cells)
    except RowUnfit as unfit:
        return SetAsideRow(row=given.number, reason=unfit.reason, file=given.file)
    return Row(
        number=given.number,
        messages=made.messages,
        text=made.text,
        facets={**made.facets, **own_labels(entry.label_columns, cells)},
        license=_license_of(cells),
    )


def _license_of(cells: Any) -> str | None:
    value = cells.get("license")
    return value.strip()[:200] if isinstance(value, str) and value.strip() else None

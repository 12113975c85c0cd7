"""Tables that the server sorts and pages: one view for all of them, in HTML, JSON and CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.errors import Refused

PAGE_ROWS = 30

Kind = Literal["text", "module", "value", "integer", "number", "fixed2", "kl", "percent"]


class Column(BaseModel):
    """A column: the field it shows, its heading, its unit and how its figures are written."""

    name: str
    label: str
    unit: str = ""
    kind: Kind = "number"

    @property
    def is_numeric(self) -> bool:
        """Whether it is set flush right."""
        return self.kind not in ("text", "module", "value")


class SortedQuery(BaseModel):
    """How a table is sorted, and which page of it. Without ``sort`` it is as the table has it."""

    # ``format`` and whatever else the address carries is somebody else's.
    model_config = ConfigDict(extra="ignore")

    sort: Annotated[str, Field(max_length=60)] = ""
    descending: bool = True
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1


class SortedTable(BaseModel):
    """A page of a table. ``address`` is its own, ``chart`` that of its chart."""

    name: str
    title: str
    note: str
    address: str
    chart: str | None
    chart_label: str
    columns: list[Column]
    rows: list[dict[str, Any]]
    query: SortedQuery
    total: int
    pages: int


def sorted_rows(
    rows: Sequence[BaseModel], columns: Sequence[Column], query: SortedQuery
) -> list[dict[str, Any]]:
    """All rows in the order asked for; what was not measured stands last either way.

    Raises Refused for a column the table has not.
    """
    documents = [row.model_dump(include={column.name for column in columns}) for row in rows]
    if not query.sort:
        return documents
    if query.sort not in {column.name for column in columns}:
        known = ", ".join(column.name for column in columns)
        raise Refused(f"sort: there is no column {query.sort!r}; there are {known}.")
    measured = [row for row in documents if row[query.sort] is not None]
    measured.sort(key=lambda row: row[query.sort], reverse=query.descending)
    return measured + [row for row in documents if row[query.sort] is None]

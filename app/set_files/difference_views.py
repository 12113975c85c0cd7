"""What the page that holds two sets side by side shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session

from app.calibration import service
from app.facets import Facet
from app.paging import page_of
from app.set_files.comparing import SetDifference, built_sets, compare, find_side
from app.set_files.differences import FacetDifference, Presence, RowDifference, SliceDifference
from app.settings import Settings

PAGE_ROWS = 50
LONGEST_VALUE = 400
ROW_COLUMNS = ("row_id", "presence", "source", "slice", "tokens", "changed")


class DifferenceQuery(BaseModel):
    """Two sets by id, which rows to list, and the page of them."""

    model_config = ConfigDict(extra="ignore")

    a: Annotated[str, Field(max_length=80)] = ""
    b: Annotated[str, Field(max_length=80)] = ""
    rows: Literal["", "only A", "only B", "both"] = ""
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1


class SetChoice(BaseModel):
    """A set that can be compared."""

    id: str
    label: str


class RowPage(BaseModel):
    """A page of the rows that differ; ``total`` is how many the filter leaves."""

    rows: list[RowDifference]
    total: int
    page: int
    pages: int


class DifferenceView(BaseModel):
    """Two sets side by side; without ``difference`` there is only the choice of two."""

    query: DifferenceQuery
    choices: list[SetChoice]
    difference: SetDifference | None = None
    rows: RowPage | None = None
    is_same: bool = False
    longest_value: int = LONGEST_VALUE

    def largest(self, facet: Facet) -> int:
        """The largest difference in tokens among the values of a facet."""
        return max((abs(one.tokens) for one in self.of_facet(facet)), default=0)

    def of_facet(self, facet: Facet) -> list[FacetDifference]:
        """The values of a facet, the largest difference first."""
        held = self.difference.held if self.difference else None
        values = [one for one in held.facets if one.facet is facet] if held else []
        return sorted(values, key=lambda one: (-abs(one.tokens), one.value))

    def slices(self) -> list[SliceDifference]:
        """The slices, the largest difference first."""
        held = self.difference.held if self.difference else None
        return sorted(held.slices, key=lambda one: -abs(one.tokens)) if held else []


def difference_view(session: Session, settings: Settings, query: DifferenceQuery) -> DifferenceView:
    """The page of two sets. Raises NotFound for a set that is not there."""
    choices = _choices(session, settings)
    if not query.a or not query.b:
        return DifferenceView(query=query, choices=choices)
    sides = [find_side(session, settings, name) for name in (query.a, query.b)]
    found = compare(settings, *sides)
    listed: Presence | Literal[""] = query.rows
    rows = found.held.rows if found.held else []
    wanted = [row for row in rows if not listed or row.presence == listed]
    shown, page, pages = page_of(wanted, query.page, PAGE_ROWS)
    return DifferenceView(
        query=query.model_copy(update={"page": page}),
        choices=choices,
        difference=found,
        rows=RowPage(rows=shown, total=len(wanted), page=page, pages=pages),
        is_same=not (found.composition or found.made_of or rows),
    )


def csv_rows(view: DifferenceView) -> Iterator[tuple[Any, ...]]:
    """Every row that differs, whatever page is shown."""
    held = view.difference.held if view.difference else None
    for row in held.rows if held else []:
        if not view.query.rows or row.presence == view.query.rows:
            document = row.model_dump()
            yield tuple(
                ", ".join(document[column]) if column == "changed" else document[column]
                for column in ROW_COLUMNS
            )


def _choices(session: Session, settings: Settings) -> list[SetChoice]:
    saved = [
        SetChoice(id=one.id, label=f"{one.name} · saved {one.created_at:%Y-%m-%d %H:%M} · {one.id}")
        for one in service.list_sets(session)
    ]
    built = [
        SetChoice(id=one.id, label=f"{one.name} · built, {one.tokens:,} tokens · {one.id}")
        for one in built_sets(settings)
    ]
    return [*saved, *built]

"""What an imported file gives: a composition, the catalogue entries it needs, and what to know."""

from __future__ import annotations

from itertools import groupby
from typing import Any, Literal

from pydantic import BaseModel

from app.calibration.spec import SetSpec
from app.facets import Facet
from app.sources.entry import SourceEntry

SHOWN_LINE = 140


class ImportWarning(BaseModel):
    """Something a person should know of the file, with the line it stands on (from 1)."""

    line: int
    message: str


class LineNotes(BaseModel):
    """A line of the file, what stands there, and what to know of it."""

    line: int
    source: str
    messages: list[str]


class ImportNotes(BaseModel):
    """What is to be known of the file a set came from, line by line."""

    file_name: str
    lines: list[LineNotes]

    @property
    def count(self) -> int:
        """How many things there are to know."""
        return sum(len(one.messages) for one in self.lines)


class ImportedEntry(BaseModel):
    """One entry of the file: the slice it became, the source it takes its rows from.

    ``names`` are the languages its prompt deals to the rows.
    """

    line: int
    slice: str
    source: str
    origin: str
    rows: int | Literal["all"] | None
    formatter: str
    category: str | None
    domain: str | None
    names: list[str]


class Category(BaseModel):
    """A section of the file, and what it holds. ``said_rows`` is what its heading says."""

    title: str
    domain: str | None
    entries: int
    rows: int
    line: int
    said_rows: int | None


class ImportedSet(BaseModel):
    """A file that was read. ``sources`` are the entries of the catalogue that the set uses,
    without the starter corpus; ``format`` is whose file it is."""

    format: Literal["quantizers", "calibrant"] = "quantizers"
    spec: SetSpec
    sources: list[SourceEntry]
    entries: list[ImportedEntry]
    categories: list[Category]
    warnings: list[ImportWarning]

    def notes(self, text: str, file_name: str) -> ImportNotes:
        """The warnings by line, each with what stands there in the file's ``text``."""
        lines = text.split("\n")
        by_line = groupby(self.warnings, key=lambda one: one.line)
        return ImportNotes(
            file_name=file_name,
            lines=[
                LineNotes(line=at, source=_shortened(lines, at), messages=[w.message for w in them])
                for at, them in by_line
            ],
        )

    @property
    def rows(self) -> int:
        """Rows asked for in numbers; entries that take all rows are not in it."""
        return sum(entry.rows for entry in self.entries if isinstance(entry.rows, int))

    @property
    def is_open(self) -> bool:
        """Whether an entry takes all the rows there are."""
        return any(entry.rows == "all" for entry in self.entries)

    @property
    def repositories(self) -> int:
        """Different data sets of the hub and folders."""
        return len({entry.origin for entry in self.entries})

    def values(self, facet: Facet) -> list[str]:
        """The values of a facet that the file names, in prompts, tags and filters."""
        prompts = [part.prompt for part in self.spec.slices if part.prompt]
        named = [value for each in prompts if each.facet is facet for value in each.values]
        tagged = [source.tags[facet] for source in self.sources if facet in source.tags]
        kept = [value for part in self.spec.slices for value in part.facets.get(facet, ())]
        return list(dict.fromkeys([*named, *tagged, *kept]))

    def as_json(self) -> dict[str, Any]:
        """The document of ``calibrant sets import --json``."""
        return {
            "name": self.spec.name,
            "format": self.format,
            "entries": len(self.entries),
            "rows": self.rows,
            "repositories": self.repositories,
            "max_seq_length": self.spec.max_length,
            "seed": self.spec.seed,
            "spoken_languages": self.values(Facet.SPOKEN_LANGUAGE),
            "programming_languages": self.values(Facet.PROGRAMMING_LANGUAGE),
            "categories": [category.title for category in self.categories],
            "sections": [category.model_dump() for category in self.categories],
            "slices": [entry.model_dump() for entry in self.entries],
            "warnings": [warning.model_dump() for warning in self.warnings],
        }


def _shortened(lines: list[str], number: int) -> str:
    """A line of the file, as long as a page shows it."""
    text = lines[number - 1].strip() if 0 < number <= len(lines) else ""
    return text if len(text) <= SHOWN_LINE else text[: SHOWN_LINE - 1] + "…"

"""What the pages about files of sets show."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel
from sqlmodel import Session

from app.calibration.spec import SetSpec
from app.facets import Facet, label_of
from app.set_files.imported_set import (
    Category,
    ImportedEntry,
    ImportedSet,
    ImportNotes,
    ImportWarning,
    LineNotes,
)
from app.set_files.service import exported
from app.sources.entry import HubOrigin
from app.yaml_lines import MAX_BYTES


class NamedValues(BaseModel):
    """The values of a facet that a file names, as a person reads them."""

    facet: Facet
    values: list[str]
    labels: list[str]


class ImportReport(BaseModel):
    """A file that was read: totals, entries by category, every warning with its line.

    ``rows`` counts the entries that give a number; ``unbounded`` entries take all rows there are.
    ``to_fetch`` are sources of the hub, which a build must fetch first.
    """

    name: str
    format: Literal["quantizers", "calibrant"]
    spec: SetSpec
    entries: int
    rows: int
    unbounded: int
    repositories: int
    to_fetch: int
    max_seq_length: int
    seed: int
    named: list[NamedValues]
    categories: list[Category]
    slices: list[ImportedEntry]
    warnings: list[ImportWarning]
    lines: list[LineNotes]


class ImportView(BaseModel):
    """The import page: what was given, and what it is or why it is nothing. ``id`` is the saved
    set's."""

    file_name: str = ""
    text: str = ""
    problem: str | None = None
    found: ImportReport | None = None
    id: str | None = None
    max_bytes: int = MAX_BYTES


def import_report(found: ImportedSet, notes: ImportNotes) -> ImportReport:
    """A file that was read, as its page shows it."""
    return ImportReport(
        name=found.spec.name,
        format=found.format,
        spec=found.spec,
        entries=len(found.entries),
        rows=found.rows,
        unbounded=sum(entry.rows == "all" for entry in found.entries),
        repositories=found.repositories,
        to_fetch=sum(isinstance(source.origin, HubOrigin) for source in found.sources),
        max_seq_length=found.spec.max_length,
        seed=found.spec.seed,
        named=[
            NamedValues(
                facet=facet,
                values=found.values(facet),
                labels=[label_of(facet, value) for value in found.values(facet)],
            )
            for facet in (Facet.SPOKEN_LANGUAGE, Facet.PROGRAMMING_LANGUAGE)
        ],
        categories=found.categories,
        slices=found.entries,
        warnings=found.warnings,
        lines=notes.lines,
    )


class SetFiles(BaseModel):
    """What of a set can be had as a file. ``unsaid`` is what the quantizers' format has no field
    for, empty where it can hold the set."""

    unsaid: str


def set_files(session: Session, spec: SetSpec) -> SetFiles:
    """The files of a set's composition."""
    return SetFiles(unsaid=exported(session, spec).unsaid)

"""Sets between files and the catalogue: reading, keeping and writing them here."""

from __future__ import annotations

from collections.abc import Mapping

from sqlmodel import Session, select

from app.calibration import service
from app.calibration.models import CalibrationSet
from app.calibration.spec import SetSpec
from app.set_files.imported_set import ImportedSet, ImportNotes
from app.set_files.reading import read_set_file
from app.set_files.writing import SetFile, export_set
from app.sources.built_in import built_in_entries
from app.sources.catalogue import entry_of
from app.sources.entry import SourceEntry
from app.sources.models import SourceRecord
from app.sources.service import add_all


def read_for(session: Session, content: bytes | str, file_name: str) -> ImportedSet:
    """The set of a file, with the catalogue's own entries where it has them. Raises Refused."""
    return read_set_file(content, file_name, list(_catalogue(session).values()))


def keep_imported(session: Session, found: ImportedSet, notes: ImportNotes) -> CalibrationSet:
    """Save an imported set with what is to be known of its file, and first the sources that the
    catalogue has not."""
    add_all(session, found.sources)
    return service.save_set(session, found.spec, notes.model_dump(mode="json"))


def exported(session: Session, spec: SetSpec, *, own: bool = False) -> SetFile:
    """A set's file, in our own format where that is asked for or no other can say it."""
    return export_set(spec, _catalogue(session), own=own)


def _catalogue(session: Session) -> Mapping[str, SourceEntry]:
    """Every entry by its name: those that come with Calibrant, as they were changed, and others."""
    records = {record.name: entry_of(record) for record in session.exec(select(SourceRecord))}
    return {**built_in_entries(), **records}

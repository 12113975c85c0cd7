"""The sources of a set that have no rows here yet."""

from __future__ import annotations

from pydantic import BaseModel
from sqlmodel import Session

from app.calibration.spec import SetSpec
from app.errors import NotFound
from app.settings import Settings
from app.sources.catalogue import get_entry
from app.sources.fetching import found_rows
from app.sources.models import SourceRecord
from app.sources.service import is_fetching


class MissingSource(BaseModel):
    """A source without rows here: whether it is being fetched, and why the last fetch failed."""

    name: str
    is_fetching: bool = False
    problem: str | None = None


def missing_sources(session: Session, settings: Settings, spec: SetSpec) -> list[MissingSource]:
    """The sources of a composition that have no rows here, in its order."""
    missing = []
    for name in spec.sources:
        try:
            entry = get_entry(session, name)
        except NotFound as gone:
            missing.append(MissingSource(name=name, problem=gone.sentence))
            continue
        if found_rows(entry, settings.sources_dir) is None:
            record = session.get(SourceRecord, name)
            problem = record.problem if record else None
            busy = is_fetching(record)
            missing.append(MissingSource(name=name, is_fetching=busy, problem=problem))
    return missing

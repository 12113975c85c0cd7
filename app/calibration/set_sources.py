"""The sources of a set that have no rows here yet, and fetching them, one after the other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from pydantic import BaseModel
from sqlmodel import Session

from app.calibration.spec import SetSpec
from app.errors import CalibrantError, Conflict, NotFound
from app.jobs.liveness import started_at
from app.processes import environment
from app.settings import ROOT, Settings
from app.sources import service as sources
from app.sources.catalogue import get_entry
from app.sources.fetch_process import told_in_the_record
from app.sources.fetching import found_rows
from app.sources.models import SourceRecord


class MissingSource(BaseModel):
    """A source without rows here: whether it is being fetched, the rows read so far, and why the
    last fetch failed."""

    name: str
    is_fetching: bool
    read: int | None
    problem: str | None


class FetchFailure(BaseModel):
    """A source that could not be fetched, and why."""

    source: str
    reason: str


class Fetched(BaseModel):
    """What a fetch of a set's sources came to."""

    fetched: list[str]
    failed: list[FetchFailure]


def missing_sources(session: Session, settings: Settings, spec: SetSpec) -> list[MissingSource]:
    """The sources of a composition that have no rows here, in its order."""
    missing = []
    for name in spec.sources:
        try:
            entry = get_entry(session, name)
        except NotFound as gone:
            told = MissingSource(name=name, is_fetching=False, read=None, problem=gone.sentence)
            missing.append(told)
            continue
        if found_rows(entry, settings.sources_dir) is not None:
            continue
        record = session.get(SourceRecord, name)
        missing.append(
            MissingSource(
                name=name,
                is_fetching=sources.is_fetching(record),
                read=record.fetch_read if record else None,
                problem=record.problem if record else None,
            )
        )
    return missing


def fetch_missing(
    session: Session,
    settings: Settings,
    spec: SetSpec,
    told: Callable[[str, int, int], None] | None = None,
) -> Fetched:
    """Fetch what is missing, each source by itself: one that fails does not stop the others.

    ``told`` gets the name of each source, its number and how many there are.
    """
    names = [one.name for one in missing_sources(session, settings, spec)]
    result = Fetched(fetched=[], failed=[])
    for number, name in enumerate(names, 1):
        if told is not None:
            told(name, number, len(names))
        try:
            with told_in_the_record(session, name) as progress:
                sources.fetch(session, settings, name, progress)
        except CalibrantError as error:
            result.failed.append(FetchFailure(source=name, reason=error.sentence))
            _let_go(session, name)
        else:
            result.fetched.append(name)
    return result


def _let_go(session: Session, name: str) -> None:
    """This process goes on to other sources: the record of a failed one names it no more."""
    record = session.get(SourceRecord, name)
    if record is not None:
        record.fetch_pid, record.fetch_started = None, None
        session.add(record)
        session.commit()


def start_fetch(session: Session, settings: Settings, set_id: str, spec: SetSpec) -> None:
    """Let ``calibrant sets fetch`` run beside the server.

    Raises Conflict when nothing is missing, or when a source of the set is being fetched, NotFound
    when the first that is missing is not in the catalogue.
    """
    missing = missing_sources(session, settings, spec)
    if not missing:
        raise Conflict("Every source of this set has its rows here.")
    busy = [one.name for one in missing if one.is_fetching]
    if busy:
        raise Conflict(f"{busy[0]!r} is being fetched: wait until that is done.")
    record = sources.keep(session, get_entry(session, missing[0].name))
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "sets", "fetch", "--", set_id],
        cwd=ROOT,
        env=environment(settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    record.problem, record.fetch_read = None, 0
    record.fetch_pid, record.fetch_started = process.pid, started_at(process.pid)
    session.add(record)
    session.commit()

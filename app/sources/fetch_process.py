"""A fetch asked for on a page: a process of its own, since a request must not last so long."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlmodel import Session

from app.errors import Conflict
from app.liveness import started_at
from app.processes import environment
from app.settings import ROOT, Settings
from app.sources.catalogue import get_entry
from app.sources.models import SourceRecord
from app.sources.service import is_fetching, keep
from app.sources.store import Progress

SECONDS_BETWEEN_WORDS = 1.0


def start_fetch(session: Session, settings: Settings, names: Sequence[str]) -> None:
    """Let ``calibrant sources fetch`` run beside the server, one source after the other; their
    records say how it goes.

    Raises NotFound, and Conflict while one of them is being fetched already.
    """
    entries = [get_entry(session, name) for name in names]
    for entry in entries:
        if entry.origin.kind == "starter":
            raise Conflict(f"{entry.name!r} is of the starter corpus: its rows are here.")
        if is_fetching(session.get(SourceRecord, entry.name)):
            raise Conflict(f"{entry.name!r} is being fetched already.")
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "sources", "fetch", "--", *names],
        cwd=ROOT,
        env=environment(settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    for entry in entries:
        _claim(session, keep(session, entry), process.pid)


@contextmanager
def told_in_the_record(session: Session, name: str) -> Iterator[Progress]:
    """Let the record name this process as the one that fetches, and say how many rows it read."""
    record = keep(session, get_entry(session, name))
    _claim(session, record, os.getpid())
    last = time.monotonic()

    def tell(read: int, _total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last < SECONDS_BETWEEN_WORDS:
            return
        last = time.monotonic()
        record.fetch_read = read
        session.add(record)
        session.commit()

    yield tell


def _claim(session: Session, record: SourceRecord, pid: int) -> None:
    record.problem, record.fetch_read = None, 0
    record.fetch_pid, record.fetch_started = pid, started_at(pid)
    session.add(record)
    session.commit()

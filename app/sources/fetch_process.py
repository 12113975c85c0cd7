"""A fetch asked for on a page: a process of its own, since a request must not last so long."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlmodel import Session

from app.errors import Conflict
from app.jobs.liveness import started_at
from app.processes import environment
from app.settings import ROOT, Settings
from app.sources.catalogue import get_entry
from app.sources.models import SourceRecord
from app.sources.service import is_fetching, keep
from app.sources.store import Progress

SECONDS_BETWEEN_WORDS = 1.0


def start_fetch(session: Session, settings: Settings, name: str) -> None:
    """Let ``calibrant sources fetch`` run beside the server; the source's record says how it goes.

    Raises NotFound, and Conflict while it is being fetched already.
    """
    entry = get_entry(session, name)
    if entry.origin.kind == "starter":
        raise Conflict(f"{name!r} is of the starter corpus: its rows are here.")
    if is_fetching(session.get(SourceRecord, name)):
        raise Conflict(f"{name!r} is being fetched already.")
    record = keep(session, entry)
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "sources", "fetch", "--", name],
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


@contextmanager
def told_in_the_record(session: Session, name: str) -> Iterator[Progress]:
    """Let the record name this process as the one that fetches, and say how many rows it read."""
    record = keep(session, get_entry(session, name))
    record.problem, record.fetch_read = None, 0
    record.fetch_pid, record.fetch_started = os.getpid(), started_at(os.getpid())
    session.add(record)
    session.commit()
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

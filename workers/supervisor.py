"""One child process a job: claimed, started, listened to, stopped, and never left behind.

The child is the leader of its own process group and dies with this process. Its standard output
is the job's event stream (``app.jobs.events``), its standard error the job's log.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import structlog
from pydantic import ValidationError
from sqlalchemy import update
from sqlmodel import Session, col

from app.database import session_for, utc_now
from app.jobs import files, record
from app.jobs.events import Event, Failed, Finished, parse
from app.jobs.models import Job
from app.jobs.service import get_job, move
from app.jobs.spec import JobSpec
from app.jobs.states import HELD_BY_WORKER, JobState
from app.jobs.telling import tell_of_end
from app.liveness import group_is_gone, started_at, this_host
from app.settings import ROOT, Settings

HEARTBEAT_SECONDS = 2.0
POLL_SECONDS = 0.25
POLITE_SECONDS = 5.0
LOG_TAIL_BYTES = 4000

log = structlog.get_logger()

# The child to start for a job's directory; tests start another program through the same pipes.
Command = Callable[[Path], list[str]]


def child_command(directory: Path) -> list[str]:
    """The command line of a job's child process."""
    return [sys.executable, "-m", "workers.child", str(directory), str(os.getpid())]


def supervise(settings: Settings, job_id: str, command: Command = child_command) -> None:
    """Run a job to its end, if it is still waiting to be run.

    A job that somebody else claimed, or that was cancelled while it waited, is left alone: this
    is what makes a second delivery harmless.
    """
    with session_for(settings) as session:
        if not _claim(session, job_id):
            log.info("job not claimed", job=job_id)
            return
        spec = JobSpec.model_validate(get_job(session, job_id).spec)
        spec.directory.mkdir(parents=True, exist_ok=True)
        (spec.directory / files.SPEC).write_text(spec.model_dump_json(indent=2))
        with _child(spec.directory, command) as (child, lines):
            _listen(session, spec, child, lines)
        tell_of_end(settings, get_job(session, job_id))


def _claim(session: Session, job_id: str) -> bool:
    now = utc_now()
    return move(
        session,
        job_id,
        to=JobState.STARTING,
        out_of=[JobState.QUEUED],
        worker_host=this_host(),
        worker_pid=os.getpid(),
        worker_started=started_at(os.getpid()),
        started_at=now,
        heartbeat_at=now,
    )


@contextmanager
def _child(
    directory: Path, command: Command
) -> Iterator[tuple[subprocess.Popen[bytes], queue.Queue[bytes | None]]]:
    """The job's process and the lines it says; whatever happens here, its group is ended."""
    with (directory / files.LOG).open("ab") as log_file:
        child = subprocess.Popen(
            command(directory),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log_file,
            start_new_session=True,
        )
    assert child.stdout is not None
    lines: queue.Queue[bytes | None] = queue.Queue()
    threading.Thread(target=_read, args=(child.stdout, lines), daemon=True).start()
    try:
        yield child, lines
    finally:
        end_group(child)


def _read(stream: IO[bytes], lines: queue.Queue[bytes | None]) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def end_group(child: subprocess.Popen[bytes]) -> None:
    """End a process group, politely and then not, and return when none of it is left."""
    for sign, patience in ((signal.SIGTERM, POLITE_SECONDS), (signal.SIGKILL, 30.0)):
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            child.poll()
            if group_is_gone(child.pid):
                return
            _signal_group(child.pid, sign)
            time.sleep(0.05)
    raise RuntimeError(f"process group {child.pid} survived SIGKILL for 30 seconds")


def _signal_group(group: int, sign: signal.Signals) -> None:
    try:
        os.killpg(group, sign)
    except ProcessLookupError:
        return  # It ended between the look and the signal.


def _listen(
    session: Session,
    spec: JobSpec,
    child: subprocess.Popen[bytes],
    lines: queue.Queue[bytes | None],
) -> None:
    """Hear the child out: keep its events, beat its heart, stop it when that is asked for."""
    _set(session, spec.job_id, child_pid=child.pid)
    last: Event | None = None
    number = 0
    beat = 0.0
    with (spec.directory / files.EVENTS).open("ab") as stream:
        while True:
            if time.monotonic() - beat > HEARTBEAT_SECONDS:
                beat = time.monotonic()
                _set(session, spec.job_id, heartbeat_at=utc_now())
            if _is_cancelling(session, spec.job_id):
                end_group(child)
                _finish(session, spec.job_id, JobState.CANCELLED)
                return
            try:
                line = lines.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if line is None:
                break
            event = _parse(spec.job_id, line)
            if event is None:
                continue
            stream.write(line)
            stream.flush()
            if last is None:
                move(session, spec.job_id, to=JobState.RUNNING, out_of=[JobState.STARTING])
            number += 1
            record.keep(session, spec.job_id, number, event)
            last = event
    child.wait()
    _conclude(session, spec, child.returncode, last)


def _parse(job_id: str, line: bytes) -> Event | None:
    try:
        return parse(line)
    except ValidationError:
        log.warning("not an event", job=job_id, line=line[:200].decode(errors="replace"))
        return None


def _is_cancelling(session: Session, job_id: str) -> bool:
    session.expire_all()
    return get_job(session, job_id).state == JobState.CANCELLING


def _conclude(session: Session, spec: JobSpec, returncode: int, last: Event | None) -> None:
    """The last word: what the child said, or, when it said nothing, how it ended."""
    if isinstance(last, Finished) and returncode == 0:
        record.add_result(session, spec.job_id, last.result)
        if _finish(session, spec.job_id, JobState.SUCCEEDED):
            return
    if _is_cancelling(session, spec.job_id):
        _finish(session, spec.job_id, JobState.CANCELLED)
        return
    sentence = last.sentence if isinstance(last, Failed) else _how_it_ended(spec, returncode)
    _finish(session, spec.job_id, JobState.FAILED, failure=sentence[:4000])


def _how_it_ended(spec: JobSpec, returncode: int) -> str:
    if returncode < 0:
        name = signal.Signals(-returncode).name
        hint = " The kernel may have ended it for its memory." if name == "SIGKILL" else ""
        return f"The job's process was ended by {name}.{hint} Its log says what came before."
    tail = (spec.directory / files.LOG).read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
    last_line = next((text for text in reversed(tail.splitlines()) if text.strip()), "nothing")
    return f"The job's process stopped with exit code {returncode}; it last said: {last_line}"


def _finish(session: Session, job_id: str, state: JobState, failure: str | None = None) -> bool:
    out_of = {
        JobState.SUCCEEDED: [JobState.RUNNING],
        JobState.CANCELLED: [JobState.CANCELLING],
        JobState.FAILED: [JobState.STARTING, JobState.RUNNING],
    }[state]
    assert set(out_of) <= HELD_BY_WORKER
    now = utc_now()
    values = {"finished_at": now, "heartbeat_at": now, "failure": failure}
    return move(session, job_id, to=state, out_of=out_of, **values)


def _set(session: Session, job_id: str, **values: object) -> None:
    session.connection().execute(update(Job).where(col(Job.id) == job_id).values(**values))
    session.commit()

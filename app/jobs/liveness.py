"""Whether a job's processes are really there, and what a running job is doing."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

import psutil

from app.jobs.models import Job
from app.jobs.states import FINAL, JobState

# A process's start time is read from /proc in clock ticks and rounded to hundredths of a second.
START_TOLERANCE_SECONDS = 0.05

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


class Activity(StrEnum):
    """What a job is doing, as a person wants to know it: finer than its state."""

    WAITING = "waiting"
    LOADING = "loading"
    WORKING = "working"
    STALLED = "stalled"
    STOPPING = "stopping"
    ENDED = "ended"


@lru_cache
def this_host() -> str:
    """This machine, told apart from another of the same name and from itself before a reboot."""
    boot = psutil.boot_time()
    return f"{socket.gethostname()}/{int(boot)}"


def started_at(pid: int) -> float:
    """When a process started, in seconds since the epoch."""
    return float(psutil.Process(pid).create_time())


def process_is_alive(pid: int | None, started: float | None) -> bool:
    """Whether the process that had this pid at this start time still runs."""
    if pid is None or started is None:
        return False
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < START_TOLERANCE_SECONDS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def group_is_gone(group: int) -> bool:
    """Whether no process is left in a process group (zombies do not count)."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    members = [p for p in psutil.process_iter(["pid", "status"]) if _in_group(p.pid, group)]
    return all(p.info["status"] == psutil.STATUS_ZOMBIE for p in members)


def _in_group(pid: int, group: int) -> bool:
    try:
        return os.getpgid(pid) == group
    except ProcessLookupError:
        return False


def activity_of(job: Job, now: datetime, stall_seconds: float) -> Activity:
    """What a job is doing at ``now``; ``stall_seconds`` of silence is a stall."""
    state = JobState(job.state)
    if state in FINAL:
        return Activity.ENDED
    if state is JobState.QUEUED:
        return Activity.WAITING
    if state is JobState.CANCELLING:
        return Activity.STOPPING
    heard = job.event_at or job.started_at
    if heard is not None and (now - heard).total_seconds() > stall_seconds:
        return Activity.STALLED
    return Activity.LOADING if state is JobState.STARTING else Activity.WORKING


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that started it ends (prctl(2)).

    Raises OSError when the kernel refuses.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")

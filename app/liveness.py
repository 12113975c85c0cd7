"""Whether processes are really there, and how one dies with the one that started it (Linux)."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from functools import lru_cache
from pathlib import Path

import psutil

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


@lru_cache
def this_host() -> str:
    """This machine, told apart from another of the same name and from itself before a reboot."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()}/{boot}"


def started_at(pid: int) -> float:
    """When a process started, in seconds since the machine did: unlike the time of day, that stays
    the same when somebody sets the clock. Raises ProcessLookupError when there is none."""
    _, start = _state_and_start(pid)
    return start


def process_is_alive(pid: int | None, started: float | None) -> bool:
    """Whether the process that had this pid at this start time still runs."""
    if pid is None or started is None:
        return False
    try:
        state, start = _state_and_start(pid)
    except ProcessLookupError:
        return False
    return start == started and state not in "ZX"


def _state_and_start(pid: int) -> tuple[str, float]:
    """A process's state by its letter, and its start; fields 3 and 22 of proc_pid_stat(5)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except FileNotFoundError as error:
        raise ProcessLookupError(f"there is no process {pid}") from error
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and parentheses
    return fields[0], int(fields[19]) / os.sysconf("SC_CLK_TCK")


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


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that started it ends (prctl(2)).

    Raises OSError when the kernel refuses.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")

"""Whether a process is really there: the kernel is asked, by pid and start."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from app.liveness import group_is_gone, process_is_alive, started_at, this_host


def test_a_process_is_known_by_its_pid_and_its_start() -> None:
    me = os.getpid()
    assert process_is_alive(me, started_at(me))
    assert not process_is_alive(me, started_at(me) - 0.01)
    assert not process_is_alive(me, None)
    assert not process_is_alive(None, started_at(me))


def test_a_start_is_later_than_the_parents_and_does_not_change() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert started_at(child.pid) >= started_at(os.getpid())
        assert started_at(child.pid) == started_at(child.pid)
        child.kill()


def test_a_name_with_parentheses_and_spaces_is_no_trouble(tmp_path: Path) -> None:
    odd = tmp_path / "a) S 1 (b"
    odd.symlink_to(str(shutil.which("sleep")))
    with subprocess.Popen([str(odd), "60"]) as child:
        assert process_is_alive(child.pid, started_at(child.pid))
        assert started_at(child.pid) >= started_at(os.getpid())
        child.kill()


def test_a_process_that_ended_is_gone_even_before_anybody_waits_for_it() -> None:
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    started = started_at(child.pid)
    assert not group_is_gone(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is a zombie now
    assert not process_is_alive(child.pid, started)
    assert group_is_gone(child.pid)
    child.wait()
    assert not process_is_alive(child.pid, started)
    with pytest.raises(ProcessLookupError):
        started_at(child.pid)


def test_the_machine_is_the_same_for_every_process_on_it() -> None:
    assert this_host() == this_host.__wrapped__()
    assert "/" in this_host()

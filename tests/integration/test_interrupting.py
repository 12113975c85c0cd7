"""Ctrl-C and SIGTERM: no traceback, nothing on stdout, and the end that a shell understands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.server import environment

WHILE_LOADING = """
import os, signal, threading
from app.__main__ import main
threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_as_that_signal_does(tmp_path: Path, number: int) -> None:
    """A shell goes on with its loop after an exit code, and stops after a signal."""
    pipe = tmp_path / "set.yaml"
    os.mkfifo(pipe)
    command = subprocess.Popen(
        [sys.executable, "-m", "app", "sets", "import", str(pipe), "--json"],
        env=environment(tmp_path / "data"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with pipe.open("wb"):  # returns when the command reads
        os.killpg(command.pid, number)
        said = command.communicate(timeout=60)
    assert (command.returncode, *said) == (-number, b"", b"")


def test_ctrl_c_while_the_program_loads_is_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WHILE_LOADING],
        env=environment(tmp_path),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")

from __future__ import annotations

import os
import signal
import sys
import time

import psutil
import pytest

from app.errors import CalibrantError
from app.processes import RESTARTS, ServedProcess
from app.settings import Settings


def until_it_ends(process: ServedProcess) -> None:
    while psutil.pid_exists(process.pid) and psutil.Process(process.pid).status() != "zombie":
        time.sleep(0.01)


def test_a_process_that_ends_is_started_again(settings: Settings) -> None:
    process = ServedProcess("idler", ["sleep", "60"], settings)
    try:
        assert process.mend() is None
        first = process.pid
        os.kill(first, signal.SIGKILL)
        until_it_ends(process)
        said = process.mend()
        assert said is not None
        assert "idler process stopped with exit code -9" in said
        assert "idler.log" in said
        assert process.pid != first
        assert process.mend() is None
    finally:
        process.end()


def test_a_process_that_does_not_stay_is_given_up(settings: Settings) -> None:
    process = ServedProcess("broken", [sys.executable, "-c", "raise SystemExit(3)"], settings)
    for _ in range(RESTARTS):
        until_it_ends(process)
        assert "is started again" in (process.mend() or "")
    until_it_ends(process)
    with pytest.raises(CalibrantError, match=r"exit code 3 .* again and again"):
        process.mend()

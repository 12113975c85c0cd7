from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from app.errors import CalibrantError
from app.processes import RESTARTS, ServedProcess, environment
from app.settings import Settings


def test_a_child_process_has_every_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Settings.model_validate(
        {
            "data_dir": tmp_path, "CALIBRANT_DATABASE_URL": "postgresql://user:word@host/name",
            "CALIBRANT_REDIS_URL": "redis://host:1/0", "host": "::1", "port": 1, "token": "a token",
            "assets": "local", "corpus_packs": "permissive", "threads": 3, "upload_bytes": 4,
            "unpacked_bytes": 5, "CALIBRANT_HF_TOKEN": "of the hub", "stall_seconds": 6,
            "lost_seconds": 7, "notify_url": "https://host/path",
        }
    )  # fmt: skip
    assert given.model_fields_set == set(Settings.model_fields)
    for name, value in environment(given).items():
        monkeypatch.setenv(name, value)
    assert Settings() == given


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

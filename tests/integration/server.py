"""``calibrant`` as a process: started with a deadline, its output shown when it disappoints."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.broker import answers, client_for
from app.settings import Settings

READY_SECONDS = 90.0
ADDRESS = re.compile(r"serves on (http://\S+)")


@dataclass
class Server:
    """A running ``calibrant up`` and what it has said."""

    process: subprocess.Popen[str]
    data_dir: Path
    said: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where it serves; waits until it says so."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if found := ADDRESS.search("".join(self.said)):
                return found.group(1)
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"calibrant did not come up:\n{self.everything()}")

    def everything(self) -> str:
        """What it printed, and its processes' logs."""
        logs = [path.read_text(errors="replace") for path in sorted(self.data_dir.glob("*.log"))]
        return "".join(self.said) + "\n".join(logs)


def environment(data_dir: Path, **more: str) -> dict[str, str]:
    """An environment with nothing of the tester's own Calibrant in it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CALIBRANT_")}
    given = {"CALIBRANT_DATA_DIR": str(data_dir), "CALIBRANT_ASSETS": "local"}
    return kept | given | {"OMP_NUM_THREADS": "1"} | more


def calibrant(data_dir: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        env=environment(data_dir, **more),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def stop_broker(settings: Settings) -> None:
    """End the embedded broker that a killed server left."""
    if answers(settings):
        with client_for(settings) as client:
            client.shutdown()


@contextmanager
def serving(data_dir: Path, *arguments: str, **more: str) -> Iterator[Server]:
    """A server for as long as the block runs, then stopped as Ctrl-C would."""
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", *(arguments or ("up", "--port", "0"))],
        env=environment(data_dir, **more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    server = Server(process, data_dir)
    reader = threading.Thread(target=_read, args=(process.stdout, server.said), daemon=True)
    reader.start()
    try:
        yield server
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired as error:
            process.kill()
            stop_broker(Settings(data_dir=data_dir))  # It outlives a crash, by design.
            raise AssertionError(f"it did not stop:\n{server.everything()}") from error


def _read(stream: Any, said: list[str]) -> None:
    said.extend(iter(stream.readline, ""))

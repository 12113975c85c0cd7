"""Web, worker and broker under one supervisor: what ``calibrant up`` runs."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from pydantic import SecretStr

from app.broker import broker
from app.database import migrate, session_for
from app.errors import CalibrantError, Conflict, PortInUse
from app.jobs.moving import follow_data_dir
from app.jobs.service import find_lost, is_any_held
from app.liveness import die_with_parent
from app.remote import SERVER_VARIABLE
from app.settings import ROOT, Settings

READY_SECONDS = 60.0
STOP_SECONDS = 3.0
# So often within so many seconds a process is started again.
RESTARTS = 3
RESTART_SECONDS = 120.0


class ServedProcess:
    """A process of the installation, which is started again when it ends by itself."""

    def __init__(self, name: str, command: list[str], settings: Settings) -> None:
        self._name, self._command, self._settings = name, command, settings
        self._begun: list[float] = []
        self._process = self._start()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def require_alive(self) -> None:
        """Raise CalibrantError when it ended by itself."""
        if self._process.poll() is not None:
            raise CalibrantError(f"{self._what_happened()}.")

    def mend(self) -> str | None:
        """Start it again when it ended by itself, and say so. Raises CalibrantError when that was
        tried ``RESTARTS`` times within ``RESTART_SECONDS``."""
        if self._process.poll() is None:
            return None
        now = time.monotonic()
        if sum(now - begun < RESTART_SECONDS for begun in self._begun) > RESTARTS:
            raise CalibrantError(f"{self._what_happened()}, again and again.")
        said = f"{self._what_happened()}, and is started again."
        self._process = self._start()
        return said

    def end(self) -> None:
        """Politely, and then not: a worker that holds a job would wait for the job's end. Whatever
        it started dies with it (``die_with_parent``)."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _what_happened(self) -> str:
        return (
            f"The {self._name} process stopped with exit code {self._process.returncode} (its log "
            f"is {self._name}.log in the data directory)"
        )

    def _start(self) -> subprocess.Popen[bytes]:
        self._begun.append(time.monotonic())
        with (self._settings.data_dir / f"{self._name}.log").open("ab") as log_file:
            return subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=environment(self._settings),
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )


@dataclass(frozen=True)
class Installation:
    """A running installation: where it is reached, and its processes."""

    address: str
    web: ServedProcess
    worker: ServedProcess

    def mend(self) -> Iterator[str]:
        """Start again whichever process ended by itself: a sentence each. Raises CalibrantError
        when one of them does not stay."""
        yield from filter(None, (self.worker.mend(), self.web.mend()))


@contextmanager
def installation(settings: Settings) -> Iterator[Installation]:
    """Everything up, migrated and answering, for as long as the block runs.

    Stopped in the order web, worker, broker; the job the worker held is marked as lost at once.
    Raises PortInUse, InsecureBinding, BrokerGone, Conflict (the data directory is in use).
    """
    settings.require_safe_binding()
    port = _free_port(settings.host, settings.port)
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _sole_user(settings.data_dir), broker(settings):
        migrate(settings)
        with session_for(settings) as session:
            follow_data_dir(session, settings)
        _sweep(settings)
        try:
            with (
                _process("worker", _worker_command(), settings) as worker,
                _process("web", _web_command(settings.host, port), settings) as web,
            ):
                running = Installation(_address(settings.host, port), web, worker)
                _wait_until_ready(running)
                yield running
        finally:
            _sweep(settings, patience=STOP_SECONDS)


def _sweep(settings: Settings, patience: float = 0.0) -> None:
    """Find lost jobs; with patience, until no job is held or the time is up."""
    deadline = time.monotonic() + patience
    with session_for(settings) as session:
        while True:
            find_lost(session, settings)
            if not is_any_held(session) or time.monotonic() >= deadline:
                return
            time.sleep(0.05)


def _free_port(host: str, port: int) -> int:
    """The port to listen on, a free one when 0 was asked for. Raises PortInUse."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            raise PortInUse(
                f"Port {port} on {host} cannot be used ({error.strerror}): stop what listens "
                "there, or choose another with --port."
            ) from error
        return int(probe.getsockname()[1])


def _address(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104
    return f"http://{f'[{shown}]' if ':' in shown and '[' not in shown else shown}:{port}"


@contextmanager
def _sole_user(data_dir: Path) -> Iterator[None]:
    with (data_dir / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                f"Another calibrant runs on {data_dir}: stop it, or choose another directory with "
                "--data-dir."
            ) from error
        yield


def _web_command(host: str, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "uvicorn", "app.main:create_app", "--factory"),
        *("--host", host, "--port", str(port), "--timeout-graceful-shutdown", "2"),
    ]


def _worker_command() -> list[str]:
    return [
        *(sys.executable, "-m", "celery", "--app", "workers.celery_app", "worker"),
        *("--loglevel", "INFO", "--without-gossip", "--without-mingle", "--concurrency", "1"),
    ]


@contextmanager
def _process(name: str, command: list[str], settings: Settings) -> Iterator[ServedProcess]:
    process = ServedProcess(name, command, settings)
    try:
        yield process
    finally:
        process.end()


def environment(settings: Settings) -> dict[str, str]:
    """The environment that gives a child process these settings."""
    given = {name: value for name, value in settings if value is not None}
    given["data_dir"] = settings.data_dir.resolve()
    given["corpus_packs"] = ",".join(settings.corpus_packs)
    for name, value in given.items():
        if isinstance(value, SecretStr):  # as text it is stars
            given[name] = value.get_secret_value()
    # A child works here, whichever server the person's own commands ask.
    around = {name: value for name, value in os.environ.items() if name != SERVER_VARIABLE}
    return around | {f"CALIBRANT_{name.upper()}": str(value) for name, value in given.items()}


def _wait_until_ready(running: Installation) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        running.web.require_alive()
        running.worker.require_alive()
        try:
            if httpx.get(f"{running.address}/healthz", timeout=2.0).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise CalibrantError(f"The web process did not answer within {READY_SECONDS:.0f} seconds.")

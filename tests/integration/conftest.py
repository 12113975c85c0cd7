"""Real services: a broker on a unix socket, and a PostgreSQL cluster of our own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _newest_postgres() -> Path:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    assert versions, "PostgreSQL is missing: run `make services`"
    return versions[-1].parent


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of an empty database on a private PostgreSQL server.

    PostgreSQL refuses to run as root, so root hands its directory to the ``postgres`` user, and
    that lies where this user may go: pytest's own directories are closed to others.
    """
    home = Path(tempfile.mkdtemp(prefix="calibrant-postgres-"))
    binaries = _newest_postgres()
    prefix: list[str] = []
    if os.getuid() == 0:
        owner = pwd.getpwnam("postgres")
        os.chown(home, owner.pw_uid, owner.pw_gid)
        prefix = [shutil.which("runuser") or "runuser", "-u", "postgres", "--"]
    port = _free_port()
    data = home / "data"
    run = {"check": True, "stdout": subprocess.DEVNULL, "cwd": home}
    subprocess.run(
        [*prefix, str(binaries / "initdb"), "-D", str(data), "-U", "calibrant", "-A", "trust"],
        **run,
    )
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home}"
    control = [*prefix, str(binaries / "pg_ctl"), "-D", str(data), "-w", "-l", str(home / "log")]
    subprocess.run([*control, "-o", options, "start"], **run)
    try:
        yield f"postgresql://calibrant@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **run)
        shutil.rmtree(home)

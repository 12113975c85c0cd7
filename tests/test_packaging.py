"""The web process needs no torch, the lock has no address, the containers are what is said."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]

WITHOUT_THE_WORKER_EXTRA = """
import sys
for name in ("torch", "transformers", "llmcompressor", "compressed_tensors", "accelerate"):
    sys.modules[name] = None
"""


def python(code: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_WORKER_EXTRA + code],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "CALIBRANT_DATA_DIR": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_web_process_starts_without_torch(tmp_path: Path) -> None:
    code = """
from fastapi.testclient import TestClient
from app.database import migrate
from app.main import create_app
from app.settings import Settings
settings = Settings()
migrate(settings)
with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
    print(client.get("/healthz").status_code, client.get("/").status_code)
"""
    started = python(code, tmp_path)
    assert started.stdout.split() == ["200", "200"], started.stderr


def test_the_command_line_works_without_torch(tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['calibrant', 'jobs', 'list', '--json']; "
    code += "from app.cli import main; main()"
    listed = python(code, tmp_path)
    assert '"total": 0' in listed.stdout, listed.stderr


def lock() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line) for line in lines)
    return {name.lower().replace("_", "-"): pin for name, pin in (x.split("==") for x in lines)}


def test_the_lock_pins_every_dependency_and_names_no_address() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [
        line for extra in project["optional-dependencies"].values() for line in extra
    ]
    names = {re.split(r"[\[<>=]", line)[0].lower().replace("_", "-") for line in wanted}
    assert names <= set(lock())


@pytest.mark.parametrize("name", ["torch", "llmcompressor", "transformers", "fastapi", "celery"])
def test_what_is_installed_is_what_the_lock_says(name: str) -> None:
    assert version(name).partition("+")[0] == lock()[name]


def test_the_containers_are_web_worker_redis_and_postgres() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert set(services) == {"web", "worker", "redis", "postgres"}
    devices = services["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices[0]["capabilities"] == ["gpu"]
    for name in ("web", "worker"):
        environment = services[name]["environment"]
        assert environment["DATABASE_URL"].startswith("postgresql://")
        assert environment["CALIBRANT_TOKEN"].startswith("${CALIBRANT_TOKEN:?")


def _has_compose() -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    asked = subprocess.run([docker, "compose", "version"], capture_output=True, check=False)
    return asked.returncode == 0


@pytest.mark.skipif(not _has_compose(), reason="this machine's docker client has no compose")
def test_docker_compose_accepts_the_file() -> None:
    checked = subprocess.run(
        ["docker", "compose", "config", "--quiet"],
        cwd=ROOT,
        env=os.environ | {"CALIBRANT_TOKEN": "t", "POSTGRES_PASSWORD": "p"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr

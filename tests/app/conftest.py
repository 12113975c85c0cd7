"""An installation with something in it, for the tests of pages; made once, not to be changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.database import migrate
from app.main import create_app
from app.settings import Settings
from tests.model_directory import make_model_directory
from tests.seed import Seeded, seed

HTML = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@dataclass(frozen=True)
class Filled:
    """The filled installation: its settings, what is in it, and a client of its pages."""

    settings: Settings
    seeded: Seeded
    client: TestClient


def client_of(settings: Settings) -> TestClient:
    """A client of an installation's pages that follows no redirect."""
    app = create_app(settings)
    return TestClient(app, base_url="http://127.0.0.1", follow_redirects=False)


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """A model, two sets and a job in every state. Read it, do not write to it."""
    data_dir: Path = tmp_path_factory.mktemp("filled")
    settings = Settings(data_dir=data_dir, assets="local")
    migrate(settings)
    return Filled(settings, seed(settings), client_of(settings))


@pytest.fixture
def client(settings: Settings) -> TestClient:
    """The pages of an empty installation of the test's own."""
    return client_of(settings)


@pytest.fixture
def html() -> dict[str, str]:
    """Headers of a browser."""
    return dict(HTML)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory without weights, not to be changed."""
    return make_model_directory(tmp_path_factory.mktemp("model"))

"""Fixtures that every test may use: an installation in a directory of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings
from sqlmodel import Session

from app.database import migrate, session_for
from app.settings import Settings, get_settings

# A test must not reach a hub, nor find settings that somebody exported.
os.environ.update({"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
for name in ("DATABASE_URL", "REDIS_URL", *[n for n in os.environ if n.startswith("CALIBRANT_")]):
    os.environ.pop(name, None)

# How fast a machine is that does other things too is no property of what is tested.
hypothesis_settings.register_profile("no deadline", deadline=None)
hypothesis_settings.load_profile("no deadline")


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Settings of an empty, migrated installation."""
    get_settings.cache_clear()
    made = Settings(data_dir=tmp_path / "data", assets="local")
    migrate(made)
    yield made
    get_settings.cache_clear()


@pytest.fixture
def session(settings: Settings) -> Iterator[Session]:
    """A session on the empty installation."""
    with session_for(settings) as opened:
        yield opened

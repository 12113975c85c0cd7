"""The documents say what is there: a setting, a target or a page without a word is a bug."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_in_the_readme(name: str) -> None:
    variables = {"database_url": "DATABASE_URL", "redis_url": "REDIS_URL"}
    assert f"`{variables.get(name, f'CALIBRANT_{name.upper()}')}`" in README


def test_every_make_target_the_documents_name_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    documents = README + ARCHITECTURE + (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`?make ([a-z-]+)", documents))
    assert named <= targets


@pytest.mark.parametrize(
    "room", sorted(p.name for p in (ROOT / "app").iterdir() if (p / "__init__.py").is_file())
)
def test_every_room_is_in_the_drawing(room: str) -> None:
    assert f"`app/{room}/`" in ARCHITECTURE


def test_every_file_the_documents_link_to_exists() -> None:
    for document in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", (ROOT / document).read_text()):
            assert (ROOT / target).exists(), f"{document} links to {target}"

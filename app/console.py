"""What every command shares: where it works, and how it speaks.

Results go to stdout (with ``--json`` as one document), everything else to stderr.
"""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from sqlmodel import Session

from app.database import migrate, session_for
from app.settings import Settings, get_settings

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@contextmanager
def installed() -> Iterator[tuple[Session, Settings]]:
    """The local installation: its database, migrated, and its settings."""
    settings = get_settings()
    migrate(settings)
    with session_for(settings) as session:
        yield session, settings


def say(document: Any) -> None:
    """Print one JSON document on stdout."""
    write(jsonlib.dumps(document, ensure_ascii=False, indent=2) + "\n")


def tell(*lines: str) -> None:
    """Print lines for a person on stdout."""
    write("".join(f"{line}\n" for line in lines))


def complain(sentence: str) -> None:
    """Print a sentence on stderr."""
    sys.stderr.write(f"{sentence}\n")
    sys.stderr.flush()


def write(text: str) -> None:
    """Print text on stdout as it is."""
    sys.stdout.write(text)
    sys.stdout.flush()


def wide(name: str, value: str) -> str:
    """A name and its value, values aligned."""
    return f"{name:<14}{value}"

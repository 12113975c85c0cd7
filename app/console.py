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
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlmodel import Session

from app.artifacts import is_disk_full
from app.database import migrate, session_for, why_away
from app.errors import CalibrantError, DiskFull, FileUnusable, Refused
from app.remote import SERVER_VARIABLE, server
from app.settings import Settings, get_settings

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@contextmanager
def installed() -> Iterator[tuple[Session, Settings]]:
    """The local installation: its database, migrated, and its settings.

    Raises Refused where a server is named: what is done here would not be done there.
    """
    if elsewhere := server():
        raise Refused(
            f"This command works on this machine's data directory, not on {elsewhere}: leave "
            f"--server out (or unset {SERVER_VARIABLE}); jobs and compare are what it is for."
        )
    settings = get_settings()
    migrate(settings)
    with session_for(settings) as session:
        yield session, settings


def told(error: OSError | DatabaseError) -> CalibrantError | None:
    """What is wrong with the machine, in a sentence; None for an error that names no file, or is a
    statement's, which is the program's own."""
    if isinstance(error, DatabaseError):  # itself: SQLite's word for a file that is damaged
        is_away = isinstance(error, OperationalError) or type(error) is DatabaseError
        return why_away(error) if is_away else None
    if is_disk_full(error):  # written to an open file, such an error names none
        return DiskFull("There is no room left on the disk: free some space and try again.")
    place = error.filename2 or error.filename  # of a renaming, what it was to become
    if place is None:
        return None
    return FileUnusable(f"{place} cannot be read or written: {error.strerror}.")


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

"""Things on disk that are whole or not there: written beside their place, synced, renamed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import DiskFull

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def new_directory(place: Path) -> Iterator[Path]:
    """A directory to fill, which becomes ``place`` when the block ends well and is gone when not.

    Sync each file (:func:`sync`) before the manifest that names it. Where another process has
    made ``place`` meanwhile its copy stays: both are named by their content. Raises DiskFull when
    there is no room.
    """
    with _room_for(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=place.parent))
        try:
            yield draft
            draft.chmod(0o755)  # mkdtemp leaves it closed to everybody else
            sync(draft)
            _rename_unless_there(draft, place)
            sync(place.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def new_file(place: Path) -> Iterator[Path]:
    """A file to write, which becomes ``place`` when the block ends well and is gone when not.

    Raises DiskFull when there is no room.
    """
    with _room_for(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".draft-", suffix=place.suffix, dir=place.parent)
        os.close(handle)
        draft = Path(name)
        try:
            yield draft
            sync(draft)
            draft.chmod(0o644)
            draft.replace(place)
        finally:
            draft.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have the disk hold a file's bytes, or a directory's names, before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename_unless_there(draft: Path, place: Path) -> None:
    try:
        draft.rename(place)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


@contextmanager
def _room_for(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise DiskFull(
            f"There is no room left on the disk of {place.parent}: free some space and try again. "
            "Nothing that was there is lost."
        ) from error

"""Files that are whole or not there: written beside their place, synced, then renamed."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel

from app.errors import DiskFull


@contextmanager
def disk_full_is_a_sentence(where: Path) -> Iterator[None]:
    """Turn "no space left" of the system, or of safetensors which says it in words, into
    DiskFull."""
    try:
        yield
    except Exception as error:
        if not _is_disk_full(error):
            raise
        raise DiskFull(
            f"There is no room left on the disk of {where}: free some space and start again. "
            "Nothing that was there before is lost."
        ) from error


def _is_disk_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"os error {errno.ENOSPC}" in str(error)


def write_whole(file: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a file beside ``file``, sync it, rename it to ``file``.

    Raises DiskFull, and leaves nothing half-written.
    """
    partial = file.with_name(f".{file.name}.partial")
    try:
        with disk_full_is_a_sentence(file), partial.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """``write_whole`` of a text in UTF-8."""
    write_whole(file, lambda stream: stream.write(text.encode("utf-8")))


def write_model(file: Path, model: BaseModel) -> None:
    """``write_whole`` of a pydantic model as indented JSON."""
    write_text(file, model.model_dump_json(indent=2) + "\n")


def sync_directory(directory: Path) -> None:
    """Make renames and new names inside ``directory`` survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

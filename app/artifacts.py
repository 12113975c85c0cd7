"""Things on disk that are whole or not there: written beside their place, synced, renamed."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel

from app.errors import DiskFull, FileUnusable, NotRemoved


def require_writable(directory: Path) -> None:
    """Make a directory, and write a file into it that is gone at once: what comes at the end of a
    long pass is tried before it. Raises FileUnusable."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise FileUnusable(f"Nothing can be written into {directory}: {error.strerror}.") from error


# A hidden name: no half-written directory is taken for a whole one beside it.
DRAFT = ".calibrant-draft-"
# So long after it was last written to a draft is a killed process's. No lock tells it sooner: on a
# network file system another machine's is not seen.
FORGOTTEN_SECONDS = 24 * 3600


@contextmanager
def new_directory(place: Path) -> Iterator[Path]:
    """A directory to fill, which becomes ``place`` when the block ends well and is gone when not.

    Sync each file (:func:`sync`) before the manifest that names it. Where another process has
    made ``place`` meanwhile its copy stays: both are named by their content. Raises DiskFull when
    there is no room.
    """
    with disk_full_is_a_sentence(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        _clear_forgotten(place.parent)
        draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=place.parent))
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
    with disk_full_is_a_sentence(place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        _clear_forgotten(place.parent)
        handle, name = tempfile.mkstemp(prefix=DRAFT, suffix=place.suffix, dir=place.parent)
        os.close(handle)
        draft = Path(name)
        try:
            yield draft
            sync(draft)
            draft.chmod(0o644)
            draft.replace(place)
        finally:
            draft.unlink(missing_ok=True)


def write_whole(place: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let ``write`` fill a file, which becomes ``place``. Raises DiskFull as :func:`new_file`."""
    with new_file(place) as draft, draft.open("wb") as stream:
        write(stream)


def reserve(file: BinaryIO, size: int, where: Path) -> None:
    """Give a file its size on the disk of ``where`` now: a mapped file that finds no room later
    ends the process. Raises DiskFull."""
    with disk_full_is_a_sentence(where):
        os.posix_fallocate(file.fileno(), 0, size)


def write_text(place: Path, text: str) -> None:
    """:func:`write_whole` of a text in UTF-8."""
    write_whole(place, lambda stream: stream.write(text.encode("utf-8")))


def write_model(place: Path, model: BaseModel) -> None:
    """:func:`write_whole` of a pydantic model as indented JSON."""
    write_text(place, model.model_dump_json(indent=2) + "\n")


def sync(path: Path) -> None:
    """Have the disk hold a file's bytes, or a directory's names, before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def bytes_freed(directories: Iterable[Path]) -> int:
    """The bytes of files that are nowhere but in these directories: a file that has another name
    elsewhere (a hard link) stays on the disk when they are removed."""
    names: Counter[tuple[int, int]] = Counter()
    found: dict[tuple[int, int], os.stat_result] = {}
    for file in _files_in(directories):
        try:
            about = file.lstat()
        except FileNotFoundError:
            continue  # A retry that succeeds removes the layers of the job it went on from.
        if stat.S_ISREG(about.st_mode):
            key = about.st_dev, about.st_ino
            names[key] += 1
            found[key] = about
    return sum(about.st_size for key, about in found.items() if names[key] >= about.st_nlink)


def _files_in(directories: Iterable[Path]) -> Iterator[Path]:
    for directory in directories:
        for inner, _, names in os.walk(directory):
            yield from (Path(inner, name) for name in names)


def remove_directory(place: Path) -> None:
    """Remove a directory with all that is in it, if it is there; of a link to one, the link alone.

    Raises NotRemoved when something of it stays.
    """
    if place.is_symlink():
        place.unlink()
        return
    # Another process may be removing it too, so that only what is left at the end is told.
    shutil.rmtree(place, ignore_errors=True)
    if not place.exists():
        return
    try:
        shutil.rmtree(place)
    except OSError as error:
        raise NotRemoved(
            f"Not all of {place} is deleted: {error.filename} cannot be removed "
            f"({error.strerror}). The server tries again, or remove it by hand."
        ) from error


def _clear_forgotten(directory: Path) -> None:
    """Remove the drafts that processes which were killed left in a directory."""
    for draft in directory.glob(f"{DRAFT}*"):
        try:
            written = max(file.lstat().st_mtime for file in (draft, *draft.glob("*")))
        except FileNotFoundError:
            continue  # it became whole
        if time.time() - written < FORGOTTEN_SECONDS:
            continue
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)


def _rename_unless_there(draft: Path, place: Path) -> None:
    try:
        draft.rename(place)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


@contextmanager
def disk_full_is_a_sentence(where: Path) -> Iterator[None]:
    """Turn "no space left" of the system, or of safetensors which says it in words, into
    DiskFull."""
    try:
        yield
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise DiskFull(
            f"There is no room left on the disk of {where}: free some space and try again. "
            "Nothing that was there is lost."
        ) from error


def is_disk_full(error: Exception) -> bool:
    """Whether an error is that no space is left."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"os error {errno.ENOSPC}" in str(error)

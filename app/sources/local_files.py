"""Uploads and folders: which files they are, and their rows one after another."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from app.errors import Refused
from app.row_files.file_kinds import kind_of
from app.row_files.raw_rows import RawRow, raw_rows
from app.row_files.unpacking import Limits, NotText
from app.sources.conversion import NumberedRow
from app.sources.entry import FolderOrigin, SourceEntry, UploadOrigin

ORIGINALS = "originals"
MOST_FILES = 100_000


def original(source: str, sha256: str, sources_dir: Path) -> Path:
    """Where an uploaded file is kept as it came."""
    return sources_dir / source / ORIGINALS / sha256


def upload_rows(
    entry: SourceEntry, origin: UploadOrigin, sources_dir: Path, limits: Limits
) -> Iterator[NumberedRow]:
    """The rows of an uploaded file. Raises Refused."""
    path = original(entry.name, origin.sha256, sources_dir)
    if not path.is_file():
        raise Refused(f"The file {origin.file} of {entry.name} is not kept here: upload it again.")
    for row in raw_rows(path, origin.file, origin.encoding, limits):
        yield NumberedRow(row.number, row)


def folder_files(origin: FolderOrigin) -> list[Path]:
    """The files of a folder in the order of their names, or the one file it names. Hidden files
    and links are left out: a link may lead anywhere. Raises Refused."""
    if origin.path.is_file():
        return [origin.path]
    if not origin.path.is_dir():
        raise Refused(f"There is no file or folder {origin.path} on this machine.")
    found: list[Path] = []
    for place, folders, files in os.walk(origin.path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        here = (Path(place) / name for name in files if not name.startswith("."))
        found += [file for file in here if file.is_file() and not file.is_symlink()]
        if len(found) > MOST_FILES:
            raise Refused(
                f"{origin.path} holds more than {MOST_FILES:,} files: name a smaller one."
            )
    if not found:
        raise Refused(f"{origin.path} holds no files.")
    return sorted(found)


def folder_revision(origin: FolderOrigin) -> str:
    """SHA-256 over the names and bytes of a folder's files. Raises Refused."""
    whole = hashlib.sha256()
    for file in folder_files(origin):
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        whole.update(f"{_relative(file, origin)}\0{digest}\n".encode(errors="surrogateescape"))
    return whole.hexdigest()


def folder_rows(origin: FolderOrigin, limits: Limits) -> Iterator[NumberedRow]:
    """The rows of a folder's files. A file that cannot be read is one row with a problem."""
    number = 0
    files = folder_files(origin)
    for file in files:
        name = _relative(file, origin)
        for row in _file_rows(file, origin, limits, alone=len(files) == 1):
            number += 1
            yield NumberedRow(number, row, "" if len(files) == 1 else name)


def _file_rows(
    file: Path, origin: FolderOrigin, limits: Limits, *, alone: bool
) -> Iterator[RawRow]:
    try:
        kind_of(file.name)
        yield from raw_rows(file, file.name, origin.encoding, limits)
    except (Refused, NotText, OSError) as error:
        if alone:
            raise Refused(str(error)) if isinstance(error, OSError) else error from error
        reason = str(error).removesuffix(".")
        yield RawRow(1, None, reason)


def _relative(file: Path, origin: FolderOrigin) -> str:
    return file.name if file == origin.path else str(file.relative_to(origin.path))

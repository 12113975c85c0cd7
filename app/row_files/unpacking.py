"""A file's bytes and lines as a stream: unpacked, counted against a limit, decoded with care."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from app.errors import Refused
from app.row_files.file_kinds import FileKind, require_truthful

# A line that does not end is no row of anything. Past this it is left out.
LONGEST_LINE = 16_000_000


@dataclass(frozen=True)
class Limits:
    """Bytes a file may have after it is unpacked."""

    unpacked: int = 4_000_000_000


Stream: TypeAlias = "io.BufferedReader[Any]"


class NotText(Refused):
    """A place in a file that is not text of its encoding."""


@dataclass(frozen=True)
class Line:
    """A line of a file, numbered from 1: its text, or why it has none."""

    number: int
    text: str = ""
    problem: str | None = None


@contextmanager
def unpacked(path: Path, kind: FileKind, name: str, limits: Limits) -> Iterator[Stream]:
    """A file's bytes, unpacked as they are read.

    Raises Refused when there are more than the limit allows (a small file can unpack to a huge
    one), when the packing is broken, or when the first bytes belie the name.
    """
    with path.open("rb") as start:
        require_truthful(kind, start.read(4), name)
    with pa.OSFile(str(path)) as file:
        source = pa.CompressedInputStream(file, kind.compression) if kind.compression else file
        with io.BufferedReader(_Counted(source, name, limits.unpacked), 1 << 18) as stream:
            yield stream


def lines(stream: Stream, encoding: str, name: str) -> Iterator[Line]:
    """The lines of a file without their ends. One that is too long or not text of the encoding
    has a problem instead; where it ends is known only for encodings that write a line feed as one
    byte, so of others (UTF-16) the file is refused. Raises NotText, Refused."""
    encoding = _encoding(stream, encoding)
    if "\n".encode(encoding) != b"\n":
        yield from _decoded_lines(stream, encoding, name)
        return
    number = 0
    while raw := stream.readline(LONGEST_LINE):
        number += 1
        if len(raw) == LONGEST_LINE and not raw.endswith(b"\n"):
            _skip_line(stream)
            yield Line(number, problem=f"it is longer than {LONGEST_LINE:,} bytes")
            continue
        try:
            yield Line(number, raw.decode(encoding).rstrip("\r\n"))
        except UnicodeDecodeError as error:
            yield Line(number, problem=_not_text(error, encoding))


def require_encoding(encoding: str) -> None:
    """Raise Refused for an encoding of text that Python does not know."""
    try:
        "a".encode(encoding).decode(encoding)
    except (LookupError, UnicodeError, TypeError, AttributeError, ValueError) as error:
        raise Refused(
            f"There is no text encoding {encoding!r}: utf-8, utf-16, latin-1 and cp1252 are some."
        ) from error


class _Counted(io.RawIOBase):
    """Reads a stream of Arrow's, and counts."""

    def __init__(self, source: Any, name: str, limit: int) -> None:
        super().__init__()
        self._source, self._name, self._limit, self._read = source, name, limit, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._source.read(len(buffer))
        except (OSError, pa.ArrowException) as error:
            raise Refused(
                f"{self._name} cannot be unpacked: it is damaged or cut off after "
                f"{self._read:,} bytes."
            ) from error
        self._read += len(data)
        if self._read > self._limit:
            raise Refused(
                f"{self._name} unpacks to more than {self._limit:,} bytes, which is the limit "
                "(CALIBRANT_UNPACKED_BYTES)."
            )
        buffer[: len(data)] = data
        return len(data)


def _encoding(stream: Stream, asked: str) -> str:
    """The encoding a byte order mark tells, else the one asked for."""
    start = stream.peek(4)[:4]
    if start.startswith(codecs.BOM_UTF8):
        return "utf-8-sig" if codecs.lookup(asked).name == "utf-8" else asked
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return asked


def _decoded_lines(stream: Stream, encoding: str, name: str) -> Iterator[Line]:
    text = io.TextIOWrapper(stream, encoding)
    number = 0
    try:
        while line := text.readline(LONGEST_LINE):
            number += 1
            if len(line) == LONGEST_LINE and not line.endswith("\n"):
                raise Refused(f"{name}, line {number:,}: longer than {LONGEST_LINE:,} characters.")
            yield Line(number, line.rstrip("\r\n"))
    except UnicodeDecodeError as error:
        problem = _not_text(error, encoding)
        raise NotText(f"{name}, line {number + 1:,}: {problem}.") from error
    except UnicodeError as error:  # of encodings that want a mark at the beginning
        raise NotText(f"{name} is not {encoding.upper()}: {error}.") from error
    finally:
        if not text.closed:  # the file may be closed before a reader that stops is
            text.detach()


def _skip_line(stream: Stream) -> None:
    while (raw := stream.readline(LONGEST_LINE)) and not raw.endswith(b"\n"):
        pass


def _not_text(error: UnicodeDecodeError, encoding: str) -> str:
    byte = error.object[error.start]
    return (
        f"byte {error.start + 1:,} (0x{byte:02X}) is not {encoding.removesuffix('-sig').upper()}: "
        "save the file as UTF-8, or say its encoding"
    )

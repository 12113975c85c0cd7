"""What kind of file a source's file is, by its name and its first bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.errors import Refused
from app.facet_names import CODE_SUFFIXES

Content = Literal["jsonl", "json", "csv", "parquet", "text"]
Compression = Literal["gzip", "zstd"]

CONTENTS: dict[str, Content] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".rst": "text",
}
COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}

READABLE = "JSONL, JSON, CSV, TSV, Parquet, plain text or source code, each also .gz or .zst"
LONGEST_NAME = 200

_GZIP, _ZSTD, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"


@dataclass(frozen=True)
class FileKind:
    """What a file holds and how it is packed; the language of source code, the separator of a
    table where its name tells it."""

    content: Content
    compression: Compression | None = None
    programming_language: str | None = None
    separator: str | None = None


def safe_name(name: str) -> str:
    """A file's name as it was given. Raises Refused for one that names another folder."""
    bad = not name or name.startswith(".") or any(mark in name for mark in "/\\:")
    if bad or not name.isprintable():
        raise Refused(
            f"{name[:LONGEST_NAME]!r} cannot be a file's name here: give the name alone, "
            "without folders, not beginning with a dot."
        )
    if len(name.encode()) > LONGEST_NAME:
        raise Refused(f"The file's name is longer than {LONGEST_NAME} bytes: shorten it.")
    return name


def kind_of(name: str) -> FileKind:
    """The kind of a file by its name. Raises Refused for a name that tells none."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    compression = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    if compression:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    if last in CODE_SUFFIXES:
        return FileKind("text", compression, CODE_SUFFIXES[last])
    if last not in CONTENTS:
        raise Refused(f"{name} is of no kind that can be read: give {READABLE}.")
    return FileKind(CONTENTS[last], compression, separator="\t" if last == ".tsv" else None)


def require_truthful(kind: FileKind, first: bytes, name: str) -> None:
    """Raise Refused when a file's first bytes are not what its name says."""
    packed: Compression | None = None
    if first.startswith(_GZIP):
        packed = "gzip"
    elif first.startswith(_ZSTD):
        packed = "zstd"
    if packed != kind.compression:
        says = {"gzip": "gzip", "zstd": "zstd", None: "not packed"}
        raise Refused(
            f"{name} is {says[packed]} by its first bytes and {says[kind.compression]} by its "
            "name: rename it to what it is."
        )
    if packed is None and first.startswith(_PARQUET) != (kind.content == "parquet"):
        really = "Parquet" if first.startswith(_PARQUET) else "no Parquet"
        raise Refused(f"{name} is {really} by its first bytes: rename it to what it is.")

"""What a result was made from: the source, the packages, the files, each told by what it holds."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

from pydantic import BaseModel

from app.jobs.spec import CheckpointFile
from workers.engine.formats.safetensors_files import LENGTH_BYTES, Shards

PACKAGES = (
    "calibrant", "llmcompressor", "compressed-tensors", "transformers", "torch", "safetensors",
)  # fmt: skip
BLOCK = 1 << 20


class Source(BaseModel):
    """The model a checkpoint was made from. ``fingerprint`` is the SHA-256 over ``config.json``
    and, for each safetensors file, its name, size and header."""

    name: str
    fingerprint: str


def package_versions() -> dict[str, str]:
    """The versions of the packages that decide what a checkpoint's bytes are."""
    return {name: version(name) for name in PACKAGES}


def source_of(directory: Path) -> Source:
    """A model directory's name and fingerprint. Reads headers only, however large the model."""
    digest = hashlib.sha256((directory / "config.json").read_bytes())
    for name in Shards(directory).files:
        file = directory / name
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
            header = stream.read(min(length, file.stat().st_size))
        digest.update(f"{name}\0{file.stat().st_size}\0".encode())
        digest.update(header)
    return Source(name=directory.resolve().name, fingerprint=digest.hexdigest())


def described(file: Path) -> CheckpointFile:
    """A file's name, size in bytes and SHA-256."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return CheckpointFile(name=file.name, size_bytes=file.stat().st_size, sha256=digest.hexdigest())

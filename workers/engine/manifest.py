"""``calibrant.json``: what a checkpoint was made of, and what each of its tensors should be.

It is the last file written, so that its presence means the checkpoint is whole.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from app.errors import CheckpointRefused
from app.jobs.spec import CheckpointFile
from app.recipes.schema import Recipe
from workers.engine.safetensors_files import LENGTH_BYTES, Shards

MANIFEST = "calibrant.json"
PACKAGES = (
    "calibrant", "llmcompressor", "compressed-tensors", "transformers", "torch", "safetensors",
)  # fmt: skip
BLOCK = 1 << 20


class Source(BaseModel):
    """The model a checkpoint was made from. ``fingerprint`` is the SHA-256 over ``config.json``
    and, for each safetensors file, its name, size and header."""

    name: str
    fingerprint: str


class CheckpointManifest(BaseModel):
    """``dequantized`` holds the SHA-256 of the dequantized value of each packed weight, by the
    name it has in the source; ``smoothed`` that of each tensor that AWQ changed on purpose (norms
    and routers; up_proj where it is not packed). All other tensors equal the source's."""

    model_config = ConfigDict(extra="ignore")

    version: Literal[1] = 1
    source: Source
    recipe: Recipe
    set_id: str
    packages: dict[str, str]
    dequantized: dict[str, str]
    smoothed: dict[str, str]
    files: list[CheckpointFile]


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


def read_manifest(checkpoint: Path) -> CheckpointManifest | None:
    """The manifest of a checkpoint, None when it has none.

    Raises CheckpointRefused when it cannot be read.
    """
    file = checkpoint / MANIFEST
    if not file.is_file():
        return None
    try:
        return CheckpointManifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise CheckpointRefused(f"{file}: {where}: {first['msg']}.") from error


def described(file: Path) -> CheckpointFile:
    """A file's name, size in bytes and SHA-256."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return CheckpointFile(name=file.name, size_bytes=file.stat().st_size, sha256=digest.hexdigest())

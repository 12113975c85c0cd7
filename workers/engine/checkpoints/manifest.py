"""``calibrant.json``: what a checkpoint was made of, and what each of its tensors should be.

It is the last file written, so that its presence means the checkpoint is whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from app.errors import CheckpointRefused
from app.jobs.spec import CheckpointFile
from app.recipes.schema import Recipe
from workers.engine.models.provenance import Source

MANIFEST = "calibrant.json"


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

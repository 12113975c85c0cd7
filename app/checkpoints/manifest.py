"""What a checkpoint's own manifest says of how it was made; the engine writes it last."""

from __future__ import annotations

import json
from pathlib import Path

from app.errors import CheckpointRefused

MANIFEST = "calibrant.json"


def package_versions(checkpoint: Path | None) -> dict[str, str]:
    """The versions of the packages that made a checkpoint by name; empty where it has no manifest.

    Raises CheckpointRefused when the manifest is not what the engine wrote.
    """
    file = checkpoint / MANIFEST if checkpoint else None
    if file is None or not file.is_file():
        return {}
    try:
        packages = json.loads(file.read_text(encoding="utf-8")).get("packages") or {}
        return {str(name): str(version) for name, version in packages.items()}
    except (ValueError, AttributeError) as error:
        raise CheckpointRefused(f"{file} is damaged ({error}): run its job again.") from error

"""The manifest of a built set as something to build again, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.calibration import duplicates
from app.calibration.built_set import MANIFEST_FORMAT
from app.calibration.composition import ALGORITHM
from app.calibration.spec import SetSpec
from app.errors import CompositionRefused
from app.rendering.renderer import ALGORITHM as RENDERING
from app.rendering.renderer import Renderer


@dataclass(frozen=True)
class Rebuild:
    """What a manifest says a set was built of."""

    id: str
    spec: SetSpec
    revisions: dict[str, str]
    identity: dict[str, Any]

    def require_same_model(self, renderer: Renderer) -> None:
        """Raises CompositionRefused for a model with another tokenizer or chat template."""
        for what, key, here in (
            ("tokenizer", "tokenizer_sha256", renderer.tokenizer.sha256),
            ("chat template", "template_sha256", renderer.template.sha256),
        ):
            if self.identity.get(key) != here:
                raise CompositionRefused(
                    f"Set {self.id} was built with another {what} than this model's: name the "
                    "model it was built for, or build its composition instead of its manifest."
                )

    def differences(self) -> Iterator[str]:
        """The packages that are of another version here, a sentence each: they may give other
        bytes, and give another id."""
        for name, built_with in sorted(self.identity.get("packages", {}).items()):
            if (here := version(name)) != built_with:
                yield f"Set {self.id} was built with {name} {built_with}, here is {here}."


def read_manifest(file: Path) -> Rebuild | None:
    """What a file says to build again; None when it is no manifest of a set.

    Raises CompositionRefused for a manifest of another version of Calibrant.
    """
    try:
        document = json.loads(file.read_bytes())
        identity = document["identity"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(identity, dict):
        return None
    made_by = [identity.get(key) for key in ("format", "algorithm", "rendering", "duplicates")]
    if made_by != [MANIFEST_FORMAT, ALGORITHM, RENDERING, duplicates.ALGORITHM]:
        raise CompositionRefused(
            f"{file} was written by another version of Calibrant, which chose or rendered rows "
            "another way: the same bytes cannot be had from this one."
        )
    try:
        return Rebuild(
            id=str(document["id"]),
            spec=SetSpec.model_validate(identity["spec"]),
            revisions={one["name"]: one["revision"] for one in identity["sources"]},
            identity=identity,
        )
    except (KeyError, TypeError, ValidationError) as error:
        raise CompositionRefused(f"{file} is not the manifest of a built set: {error}.") from error

"""Whether a checkpoint can be held against a model, told from their configurations."""

from __future__ import annotations

from pathlib import Path

from app.base_models.architecture import describe
from app.errors import CheckpointRefused

SHAPE = {
    "architecture": "architecture",
    "layers": "number of layers",
    "hidden": "hidden size",
    "experts": "number of experts",
    "top_k": "number of experts a token",
    "vocabulary": "vocabulary",
}


def refuse_another_original(checkpoint: Path, base: Path) -> None:
    """Raise CheckpointRefused for a checkpoint that is not of the model's shape, and so was made
    from another; ModelRefused for what is no model at all."""
    made, original = describe(checkpoint), describe(base)
    for field, name in SHAPE.items():
        here, there = getattr(made, field), getattr(original, field)
        if here != there:
            raise CheckpointRefused(
                f"{checkpoint} was made from another model than {base}: its {name} is {here}, the "
                f"original's {there}. Give the model it was made from."
            )

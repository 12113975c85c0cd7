"""Whether a source's files hold the model its ``config.json`` describes.

transformers gives a weight without a tensor random values and says so in a table nobody reads; a
job on such a source would fail when its checkpoint is loaded again, hours later. Headers tell it
before any weight is read.
"""

from __future__ import annotations

import re
from pathlib import Path

from transformers import PreTrainedModel

from app.errors import ModelRefused
from workers.engine.formats.fp8_blocks import FP8, Fp8Blocks, blocks_of, scale_name
from workers.engine.formats.safetensors_files import Shards
from workers.engine.models.checkpoint_names import CheckpointNames, checkpoint_names
from workers.engine.models.loading import read_config

NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def refuse_incomplete(model: PreTrainedModel, directory: Path) -> None:
    """Raise ModelRefused, naming it, for a weight of the linearized ``model`` (its shapes, on the
    meta device) that has no tensor in the files of ``directory``, for a tensor of another shape,
    and for FP8 blocks whose factors are missing or of another shape."""
    shards = Shards(directory)
    names = checkpoint_names(model, shards.tensors)
    shared = getattr(model, "all_tied_weights_keys", {})
    for name, parameter in model.state_dict().items():
        source = names.source_of.get(name)
        if source is None:
            if not (name in shared or _is_held(names, name) or _may_be_missing(model, name)):
                raise ModelRefused(
                    f"{directory} has no tensor {_stored_like(name, names)}: a file is missing, or "
                    "its config.json is another model's. Fetch all of its files again."
                )
        elif shards.tensors[source].shape != tuple(parameter.shape):
            raise ModelRefused(
                f"{source} of {directory} is {_size(shards.tensors[source].shape)}, and its "
                f"config.json describes {_size(tuple(parameter.shape))}: fetch the configuration "
                "and the files of one revision."
            )
    blocks = blocks_of(read_config(directory))
    if blocks is not None:
        _refuse_without_factors(shards, blocks)


def _is_held(names: CheckpointNames, name: str) -> bool:
    return names.is_fused(name) or names.is_made(name)


def _may_be_missing(model: PreTrainedModel, name: str) -> bool:
    """What an architecture says it computes itself where a file has no tensor for it."""
    patterns = model._keys_to_ignore_on_load_missing or ()
    return any(re.search(pattern, name) for pattern in patterns)


def _stored_like(name: str, names: CheckpointNames) -> str:
    """A parameter by the checkpoint's naming, where a neighbour in another layer or expert tells
    it; else by its own name."""
    kind, numbers = NUMBER.sub("*", name), iter(NUMBER.findall(name))
    alike = (stored for n, stored in names.source_of.items() if NUMBER.sub("*", n) == kind)
    return NUMBER.sub(lambda there: next(numbers, there[0]), next(alike, name))


def _refuse_without_factors(shards: Shards, blocks: Fp8Blocks) -> None:
    for name, stored in shards.tensors.items():
        if stored.dtype != FP8 or len(stored.shape) != 2:
            continue
        rows, columns = stored.shape
        wanted = (-(-rows // blocks.rows), -(-columns // blocks.columns))
        factors = shards.tensors.get(scale_name(name))
        if factors is None or factors.shape != wanted:
            found = "is missing" if factors is None else f"is {_size(factors.shape)}"
            raise ModelRefused(
                f"{scale_name(name)} of {shards.directory} {found}, and blocks of {blocks.rows} × "
                f"{blocks.columns} of {_size(stored.shape)} want {_size(wanted)}: fetch its files "
                "again."
            )


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(f"{length:,}" for length in shape) or "one number"

"""Models larger than memory: weights that rest in a file on disk.

The file is mapped into memory, so the weights are tensors of the CPU like any others, read and
written where they are; the system loads the pages that are used, writes back those that changed,
and gives their memory to whoever needs it. Nothing else in the engine has to know, but that a pass
goes through such a model layer by layer. The file has no name once it is mapped: its room on the
disk is given back when the process ends, however it ends.

Weights are read one by one from the source's files, where every one has a tensor of its own, into
the types and names that transformers and ``linearize`` give them.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.initialization import no_init_weights

from app.artifacts import disk_full_is_a_sentence
from app.errors import ModelRefused
from workers.engine.formats.fp8_blocks import (
    FP8,
    Fp8Blocks,
    blocks_of,
    dequantize_blocks,
    scale_name,
)
from workers.engine.formats.safetensors_files import Shards
from workers.engine.models.checkpoint_names import CheckpointNames, checkpoint_names
from workers.engine.models.loading import linearize, read_config

ALIGNMENT = 64


def rests_on_disk(model: nn.Module) -> bool:
    """Whether a model's weights rest in a file."""
    weight = next(model.parameters())
    return weight.device.type == "cpu" and weight.untyped_storage().filename is not None


@torch.no_grad()
def load_resting(directory: Path, dtype: torch.dtype, scratch: Path) -> PreTrainedModel:
    """The linearized model in evaluation mode, its weights in ``dtype`` in a file in ``scratch``.

    The values are those of ``linearize(load_model(directory, dtype))``. Raises ModelRefused for a
    source that keeps several weights in one tensor, DiskFull when the weights do not fit.
    """
    model = _empty(directory, dtype)
    shards = Shards(directory)
    names = checkpoint_names(model, shards.tensors)
    refuse_not_one_by_one(model, names, directory)
    blocks = blocks_of(read_config(directory))
    wanted = dict(_wanted(model, names, dtype))
    room = _mapped(scratch, sum(_padded(like) for like in wanted.values()))
    offset = 0
    for name, like in wanted.items():
        there = torch.empty(0, dtype=like.dtype)
        there.set_(room, offset // like.itemsize, like.shape, like.stride())
        there.copy_(_value(shards, names.source_of[name], blocks))
        _place(model, name, there)
        offset += _padded(like)
    model.tie_weights()
    model.train(False)
    return model


def refuse_not_one_by_one(model: PreTrainedModel, names: CheckpointNames, directory: Path) -> None:
    """Raise ModelRefused for a weight of the linearized ``model`` that has no tensor of its own in
    the source: it can be loaded by transformers alone, into memory."""
    shared = getattr(model, "all_tied_weights_keys", {})
    for name, _ in model.named_parameters():
        if name not in names.source_of and name not in shared:
            raise ModelRefused(
                f"The model at {directory} does not fit in this machine's memory, and its weights "
                f"cannot rest on disk, because {name} has no tensor of its own in the files: run "
                "the job on a machine with more memory."
            )


def _empty(directory: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The linearized model without weights, its tables (of rotary positions, say) made."""
    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    with init_empty_weights(include_buffers=False), no_init_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    return linearize(model)


def _wanted(
    model: PreTrainedModel, names: CheckpointNames, dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every weight and buffer the source has, as it is to be loaded: on the meta device, in
    ``dtype`` but where the architecture keeps float32 (transformers' ``_get_dtype_plan``)."""
    plan = model._get_dtype_plan(dtype)
    for name, like in model.state_dict(keep_vars=True).items():
        if name in names.source_of:
            kept = next((kind for part, kind in plan.items() if re.search(part, name)), dtype)
            yield (
                name,
                torch.empty(
                    like.shape,
                    dtype=kept if like.is_floating_point() else like.dtype,
                    device="meta",
                ),
            )


def _padded(like: torch.Tensor) -> int:
    return -(-like.nbytes // ALIGNMENT) * ALIGNMENT


def _mapped(scratch: Path, size: int) -> torch.UntypedStorage:
    """So many bytes of a file in ``scratch`` that has no name any more."""
    with disk_full_is_a_sentence(scratch):
        scratch.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".weights-", dir=scratch)
        try:
            os.posix_fallocate(handle, 0, size)  # A full disk is found here, not by a signal.
            mapped = torch.UntypedStorage.from_file(name, shared=True, nbytes=size)
            return cast(torch.UntypedStorage, mapped)
        finally:
            os.close(handle)
            os.unlink(name)


def _value(shards: Shards, name: str, blocks: Fp8Blocks | None) -> torch.Tensor:
    stored = shards.tensor(name)
    if blocks is None or stored.dtype != FP8:
        return stored
    return dequantize_blocks(stored, shards.tensor(scale_name(name)), blocks)


def _place(model: nn.Module, name: str, value: torch.Tensor) -> None:
    """Make ``value`` a parameter or a buffer of the model."""
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    if leaf in module._buffers:
        module._buffers[leaf] = value
    else:
        like = module._parameters[leaf]
        assert like is not None
        module._parameters[leaf] = nn.Parameter(value, requires_grad=like.requires_grad)

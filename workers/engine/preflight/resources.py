"""What a quantize job will need: memory and disk, from shapes alone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from app.recipes.packed_size import packed_bytes
from workers.engine.device import holds, room
from workers.engine.formats.fp8_blocks import scale_name
from workers.engine.formats.safetensors_files import Shards
from workers.engine.models.architecture import layer_index, moe_layers
from workers.engine.models.checkpoint_names import CheckpointNames
from workers.engine.passes.evaluation import LOGITS_A_CHUNK
from workers.engine.passes.observation import IN_MEMORY_BYTES
from workers.engine.plan.plan import Plan
from workers.engine.preflight.lengths import HELD_OUT_TOKENS, Lengths
from workers.engine.rows.batches import vocabulary_of

SCRATCH_BYTES = 64 << 20
LIBRARIES_BYTES = 500 << 20
ACCELERATOR_BYTES = 4 << 30
# Eager attention's scores: as multiplied, with the mask added, and as a softmax.
SCORES_HELD = 3
# A chunk's logits: as multiplied in parts and joined, their logarithms of both models, and the
# terms of the sum.
LOGITS_HELD = 6
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Sizes:
    """Bytes: of the weights in the dtype they are computed in, of the largest decoder layer, of
    the packed weights, of the whole checkpoint; of one token's hidden state, router logits and
    logits; of one pair of tokens in an attention mask and in all heads' scores.
    ``tries_attention`` says that a norm's grid runs attention."""

    weights: int
    largest_layer: int
    packed: int
    checkpoint: int
    hidden_state: int
    router_logits: int
    logits: int
    mask: int
    scores: int
    tries_attention: bool


def heads_of(model: PreTrainedModel) -> tuple[int, int]:
    """How many heads a layer's attention has, and their width."""
    config = model.config.get_text_config()
    heads = int(config.num_attention_heads)
    return heads, int(getattr(config, "head_dim", None) or int(config.hidden_size) // heads)


def _tensors(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """What a model holds by name, once where a head is tied to the embeddings."""
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, tensor


def weights_of(model: PreTrainedModel, computed: int) -> tuple[int, int]:
    """The bytes of all weights and of those of the largest decoder layer, ``computed`` each."""
    layers: dict[int | None, int] = {}
    for name, parameter in _tensors(model):
        index = layer_index(name)
        layers[index] = layers.get(index, 0) + parameter.numel()
    largest = max((n for i, n in layers.items() if i is not None), default=0)
    return computed * sum(layers.values()), computed * largest


def untouched_bytes(plan: Plan, names: CheckpointNames, source: Shards) -> int:
    """The bytes of the source's tensors that a checkpoint keeps beside its packed weights, in the
    types its files have: those a model does not load too."""
    weights = {names.source_of.get(f"{module}.weight", "") for module in plan.modules}
    packed = weights | {scale_name(weight) for weight in weights}
    return sum(one.size_bytes for name, one in source.tensors.items() if name not in packed)


def sizes_of(
    model: PreTrainedModel, plan: Plan, computed: int, stored: int, untouched: int | None = None
) -> Sizes:
    """The sizes of a model and its checkpoint. ``computed`` is the bytes of a weight in the dtype
    computed in, ``stored`` in the source; ``untouched`` are those of :func:`untouched_bytes`, None
    where there are no files: then every weight is taken to be stored alike."""
    replaced = packed = 0
    for name, parameter in _tensors(model):
        group = plan.modules.get(name.removesuffix(".weight")) if parameter.ndim == 2 else None
        if group is not None:
            replaced += parameter.numel()
            rows, columns = parameter.shape
            packed += packed_bytes(rows, columns, group, stored)
    weights, largest_layer = weights_of(model, computed)
    if untouched is None:
        untouched = (weights // computed - replaced) * stored
    config = model.config.get_text_config()
    return Sizes(
        weights=weights,
        largest_layer=largest_layer,
        packed=packed,
        checkpoint=untouched + packed,
        hidden_state=int(config.hidden_size) * computed,
        router_logits=sum(layer.experts for layer in moe_layers(model)) * FLOAT32_BYTES,
        logits=vocabulary_of(model) * FLOAT32_BYTES,
        mask=computed,
        scores=heads_of(model)[0] * FLOAT32_BYTES,
        tries_attention=any(not mapping.token_wise for mapping in plan.mappings),
    )


def sizes_in(
    directory: Path,
    model: PreTrainedModel,
    plan: Plan,
    computed: int,
    names: CheckpointNames | None,
) -> Sizes:
    """The sizes of a job on the model in a directory; without ``names``, those of the source's
    files, its weights are taken to be of the model's type."""
    untouched = untouched_bytes(plan, names, Shards(directory)) if names is not None else None
    return sizes_of(model, plan, computed, stored_bytes(model), untouched)


def stored_bytes(model: PreTrainedModel) -> int:
    """The bytes of one weight of the model's own type."""
    return int(model.dtype.itemsize)


def ram_of(sizes: Sizes, rows: Lengths, on_cpu: bool) -> int:
    """The RAM of a job in bytes, ``on_cpu`` where no accelerator computes it.

    The whole time: the model's weights, or one layer's where they rest on disk, the libraries, and
    what is read and written. While it is quantized, for every token the layer's input, its block's
    input and its block's output; the attention masks; of the held-out rows, whose tokens are
    assumed, the original's last hidden states and its routers' logits up to a quarter of a
    gigabyte, more going to a file; and on a CPU the largest layer twice more for the grid, or eager
    attention's scores of the longest batch.
    While it is evaluated instead, the hidden states and router logits of both models, and logits of
    a few hundred positions. Pages of files that are mapped are not counted: they are given back.
    """
    resting = must_rest_on_disk(sizes.weights, sizes.largest_layer)
    weights = sizes.largest_layer if resting else sizes.weights
    always = weights + LIBRARIES_BYTES + SCRATCH_BYTES
    routing = rows.held_out * sizes.router_logits
    observed = rows.held_out * sizes.hidden_state + (0 if routing > IN_MEMORY_BYTES else routing)
    quantizing = 3 * rows.tokens * sizes.hidden_state + rows.masks * sizes.mask + observed
    evaluating = 2 * observed
    if on_cpu:
        quantizing += _one_or_both(sizes, 2 * sizes.largest_layer, _scores(sizes, rows))
        evaluating += LOGITS_HELD * LOGITS_A_CHUNK * sizes.logits
    return always + max(quantizing, evaluating)


def rows_on_accelerator(sizes: Sizes, rows: Lengths) -> int:
    """What the rows take of an accelerator's memory, in bytes: what a block is given or gives of
    every token while its layer is searched, or eager attention's scores of the longest batch."""
    return _one_or_both(sizes, rows.tokens * sizes.hidden_state, _scores(sizes, rows))


def _scores(sizes: Sizes, rows: Lengths) -> int:
    return SCORES_HELD * sizes.scores * rows.longest**2


def _one_or_both(sizes: Sizes, searching: int, attending: int) -> int:
    """What is held of the two: a search holds its part until the next layer's attention runs, or
    runs attention itself."""
    return searching + attending if sizes.tries_attention else max(searching, attending)


def vram_of(weights: int, largest_layer: int, rows: int = 0) -> tuple[int, int]:
    """The memory of an accelerator that holds the whole model, and of one that is given a layer
    at a time, in bytes: besides the weights the largest layer twice more while the grid is
    searched, what the ``rows`` take (:func:`rows_on_accelerator`), and room for Gram matrices, the
    output head, and a batch with its logits."""
    searching = 2 * largest_layer + rows + ACCELERATOR_BYTES
    return weights + searching, largest_layer + searching


def resting_device(
    model: PreTrainedModel, dtype: torch.dtype, device: torch.device
) -> torch.device:
    """Where a model's weights rest in ``dtype`` when ``device`` computes: there if it holds them
    all, else in RAM. ``model`` may be on the meta device."""
    weights, largest_layer = weights_of(model, dtype.itemsize)
    whole, _ = vram_of(weights, largest_layer)
    held = room().accelerator
    return device if held is None or whole <= held else torch.device("cpu")


def must_rest_on_disk(weights: int, largest_layer: int) -> bool:
    """Whether weights of so many bytes have to rest in a file: the accelerator does not hold them,
    and RAM does not with the largest layer's copies of the search and the libraries."""
    there = room()
    whole, _ = vram_of(weights, largest_layer)
    if there.accelerator is not None and whole <= there.accelerator:
        return False
    return not holds(there.ram, weights + 2 * largest_layer + LIBRARIES_BYTES)


def disk_of(sizes: Sizes) -> int:
    """The disk of a job in bytes: the finished layers, and then the checkpoint that is made from
    them; before it the router logits of both models, float16, where they are too many for RAM; the
    weights, where those are."""
    routing = HELD_OUT_TOKENS * sizes.router_logits
    resting = sizes.weights if must_rest_on_disk(sizes.weights, sizes.largest_layer) else 0
    written = max(sizes.checkpoint, routing if routing > IN_MEMORY_BYTES else 0)
    return sizes.packed + written + resting


def free_disk(place: Path) -> int:
    """The free bytes of the disk that ``place`` is on, or will be."""
    there = next(each for each in (place, *place.parents) if each.exists())
    return shutil.disk_usage(there).free

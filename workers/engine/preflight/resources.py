"""What a quantize job will need: memory, disk and time, from shapes alone.

Time is counted in multiply-accumulates of matrix products and in weights rounded by the search,
each divided by a speed measured on the machine (``workers.engine.preflight.measurement``). The
counts are those of ``workers.engine.awq.modifier``: with E experts of which a token takes k, each
of P weights, gate and up being U of them, an expert's inner width m, and g grid points, a token
costs in one layer

- k · P for the coverage and for the calibration pass, and E · P (every token through every
  expert) or k · P to carry it on;
- n · (U + m²) for the experts' statistics, n being E or k;
- s · (g + 1) · k · P for the norm's grid, s being the share of tokens it is tried on;

and as much again as the layer's other weights take in each of these passes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from app.recipes.packed_size import packed_bytes
from workers.engine.awq.modifier import FAST_SHARE
from workers.engine.device import room
from workers.engine.formats.fp8_blocks import scale_name
from workers.engine.formats.safetensors_files import Shards
from workers.engine.models.architecture import MoeLayer, layer_index, moe_layers
from workers.engine.models.checkpoint_names import CheckpointNames
from workers.engine.plan.mappings import TreeMapping
from workers.engine.plan.plan import Plan, carries_every_token, grid_points

SCRATCH_BYTES = 64 << 20
LIBRARIES_BYTES = 700 << 20
ACCELERATOR_BYTES = 2 << 30
MASK_ELEMENT_BYTES = 4
HELD_OUT_TOKENS = 45_000


@dataclass(frozen=True)
class Work:
    """``macs`` multiply-accumulates, ``rounded`` weights rounded by grid searches."""

    macs: float
    rounded: float


@dataclass(frozen=True)
class Sizes:
    """Bytes: of the weights in the dtype they are computed in, of the largest decoder layer, of
    the packed weights, of the whole checkpoint, and of one token's hidden state."""

    weights: int
    largest_layer: int
    packed: int
    checkpoint: int
    hidden_state: int


@dataclass(frozen=True)
class _Matrix:
    """A weight of two dimensions, and the share of tokens that run through it."""

    module: str
    weights: int
    share: float


class Matrices:
    """Every matrix of a linearized model that a token may run through."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.mixtures = {layer.index: layer for layer in moe_layers(model)}
        self._all = [
            _Matrix(name, weight.numel(), self._share_of(name))
            for name, module in model.named_modules()
            if (weight := module._parameters.get("weight")) is not None
            and weight.ndim == 2
            and not isinstance(module, nn.Embedding)
        ]

    @property
    def layers(self) -> set[int]:
        """The decoder layers there are."""
        return {index for each in self._all if (index := layer_index(each.module)) is not None}

    def a_token(self, under: str = "", every_expert: bool = False) -> float:
        """The weights a token runs through, in the whole model or under one module."""
        return sum(
            each.weights * (1 if every_expert else each.share)
            for each in self._all
            if each.module.startswith(under)
        )

    def mixture_of(self, module: str) -> MoeLayer | None:
        """The mixture whose expert a module is part of."""
        mixture = self.mixtures.get(-1 if (index := layer_index(module)) is None else index)
        if mixture is None or not module.startswith(f"{mixture.experts_name}."):
            return None
        return mixture

    def _share_of(self, module: str) -> float:
        mixture = self.mixture_of(module)
        return mixture.top_k / mixture.experts if mixture else 1.0


def work_of(model: PreTrainedModel, plan: Plan, tokens: int, tokens_a_batch: int) -> Work:
    """The work of a whole job: coverage, quantization and evaluation."""
    matrices = Matrices(model)
    active = matrices.a_token()
    carried = matrices.a_token(every_expert=carries_every_token(plan.recipe))
    attention = len(matrices.layers) * _attention(model, tokens_a_batch)
    macs = tokens * (2 * active + carried + 3 * attention)
    macs += 2 * HELD_OUT_TOKENS * (active + attention)
    points = grid_points(plan.recipe)
    rounded = 0.0
    for mapping in plan.mappings:
        macs += tokens * _search(model, mapping, matrices, plan, points)
        balance = (n for n in mapping.balance if n in plan.modules)
        rounded += points * sum(model.get_parameter(f"{name}.weight").numel() for name in balance)
    return Work(macs, rounded)


def _attention(model: PreTrainedModel, tokens_a_batch: int) -> int:
    """Multiply-accumulates a token of one layer's attention besides its projections: eager
    attention holds every token of a batch against every other."""
    config = model.config.get_text_config()
    heads = int(config.num_attention_heads)
    width = getattr(config, "head_dim", None) or int(config.hidden_size) // heads
    return 2 * tokens_a_batch * heads * int(width)


def _search(
    model: PreTrainedModel, mapping: TreeMapping, matrices: Matrices, plan: Plan, points: int
) -> float:
    """Multiply-accumulates a token that one mapping's search takes."""
    if mapping.balance == (mapping.parent,):
        weight = model.get_parameter(f"{mapping.parent}.weight")
        gram = weight.shape[1] ** 2
        mixture = matrices.mixture_of(mapping.parent)
        if mixture is None:
            return float(gram)
        share = 1.0 if plan.recipe.statistics == "all" else mixture.top_k / mixture.experts
        # Gate and up have together twice the weights of down.
        return share * (2 * weight.numel() + gram)
    tried = FAST_SHARE if plan.recipe.search == "fast" else 1.0
    return tried * (points + 1) * matrices.a_token(under=f"{mapping.parent}.")


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
    return Sizes(
        weights=weights,
        largest_layer=largest_layer,
        packed=packed,
        checkpoint=untouched + packed,
        hidden_state=int(model.config.get_text_config().hidden_size) * computed,
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


def ram_of(sizes: Sizes, tokens: int, tokens_a_batch: int) -> int:
    """The RAM of a job in bytes, whether or not an accelerator computes it.

    For every token the layer's input, its block's input and its block's output are kept, and a
    row of its batch's attention mask; of weights the model, and its largest layer twice more while
    the grid is searched on a CPU.
    """
    kept = tokens * (3 * sizes.hidden_state + MASK_ELEMENT_BYTES * tokens_a_batch)
    return sizes.weights + 2 * sizes.largest_layer + SCRATCH_BYTES + kept + LIBRARIES_BYTES


def vram_of(weights: int, largest_layer: int) -> tuple[int, int]:
    """The memory of an accelerator that holds the whole model, and of one that is given a layer
    at a time, in bytes: besides the weights the largest layer twice more while the grid is
    searched, and room for Gram matrices, a batch and its logits."""
    searching = 2 * largest_layer + ACCELERATOR_BYTES
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


def disk_of(sizes: Sizes) -> int:
    """The checkpoint and, until it is whole, the finished layers it is made from, in bytes."""
    return sizes.checkpoint + sizes.packed


def free_disk(place: Path) -> int:
    """The free bytes of the disk that ``place`` is on, or will be."""
    there = next(each for each in (place, *place.parents) if each.exists())
    return shutil.disk_usage(there).free

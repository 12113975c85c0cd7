"""Which experts the rows of a set reach, by the model's own routing.

Counts are taken where the router's choice arrives: at the experts module, which gets, for each
token, the indices of its top-k experts and their weights. No padding token is ever counted,
because batches hold none (``workers.engine.batches``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from app.artifacts import write_whole
from workers.engine.architecture import MoeLayer, moe_layers
from workers.engine.batches import PackedBatch
from workers.engine.calibration_rows import FACET_COLUMNS, CalibrationRows
from workers.engine.device import compute_device
from workers.engine.forward import Progress, last_hidden

Routed = Callable[[int, torch.Tensor, torch.Tensor], None]


@dataclass(frozen=True)
class RoutingCounts:
    """Tokens routed to each expert by each row.

    ``counts`` int64 and ``mass`` float32, both [rows, MoE layers, experts]; ``mass`` is the sum
    of the router's weights for the tokens counted. ``layers`` are decoder layer indices.
    """

    layers: tuple[int, ...]
    top_k: int
    counts: torch.Tensor
    mass: torch.Tensor

    @property
    def experts_total(self) -> int:
        """How many experts there are over all layers."""
        return int(self.counts.shape[1] * self.counts.shape[2])

    @property
    def experts_reached(self) -> int:
        """How many of them at least one token was routed to."""
        return int((self.counts.sum(dim=0) > 0).sum())

    @property
    def uncovered(self) -> list[dict[str, Any]]:
        """The experts no token was routed to, as ``{"layer", "expert"}``."""
        missed = (self.counts.sum(dim=0) == 0).nonzero().tolist()
        return [{"layer": self.layers[layer], "expert": expert} for layer, expert in missed]


@contextmanager
def routed_tokens(
    model: PreTrainedModel, layers: Sequence[MoeLayer], receive: Routed
) -> Iterator[None]:
    """Call ``receive(position, indices, weights)`` for every pass through an experts module.

    ``position`` counts MoE layers from 0; ``indices`` int64 and ``weights`` float, both
    [tokens, top-k]. Works before and after linearization.
    """
    with ExitStack() as stack:
        for position, layer in enumerate(layers):
            module = model.get_submodule(layer.experts_name)
            handle = module.register_forward_pre_hook(
                _pre_hook(position, receive), with_kwargs=True
            )
            stack.callback(handle.remove)
        yield


def _pre_hook(position: int, receive: Routed) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        bound = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        indices, weights = list(bound.values())[1:3]
        indices = indices.reshape(-1, indices.shape[-1])
        weights = weights.reshape(len(indices), -1)
        if weights.shape[-1] != indices.shape[-1]:  # scores of all experts, as gpt-oss had
            weights = weights.gather(1, indices)
        receive(position, indices, weights)

    return hook


@torch.no_grad()
def count_routing(
    model: PreTrainedModel,
    batches: Sequence[PackedBatch],
    rows: int,
    progress: Progress | None = None,
) -> RoutingCounts:
    """Count what the model's own routing does with every row.

    A dense model has no experts to count: its arrays have no layers, and top-k is 0. The counts
    of all rows stay on the compute device until the end.
    """
    layers = moe_layers(model)
    if not layers:
        nothing = torch.zeros(rows, 0, 0)
        return RoutingCounts(layers=(), top_k=0, counts=nothing.long(), mass=nothing)
    shape = (len(layers), rows, layers[0].experts)
    device = compute_device()
    counts = torch.zeros(shape, dtype=torch.int64, device=device)
    mass = torch.zeros(shape, dtype=torch.float32, device=device)
    row_of_token = torch.empty(0, dtype=torch.int64)

    def before(batch: PackedBatch) -> None:
        nonlocal row_of_token
        row_of_token = batch.row_of_token.to(device)

    def receive(position: int, indices: torch.Tensor, weights: torch.Tensor) -> None:
        cell = (row_of_token[:, None] * shape[2] + indices).flatten()
        counts[position].view(-1).index_add_(0, cell, torch.ones_like(cell))
        mass[position].view(-1).index_add_(0, cell, weights.float().flatten())

    with routed_tokens(model, layers, receive):
        for _ in last_hidden(model, batches, before, progress):
            pass
    return RoutingCounts(
        layers=tuple(layer.index for layer in layers),
        top_k=layers[0].top_k,
        counts=counts.transpose(0, 1).contiguous().cpu(),
        mass=mass.transpose(0, 1).contiguous().cpu(),
    )


def write_coverage(file: Path, routing: RoutingCounts, rows: CalibrationRows) -> None:
    """Write the counts as ``app.coverage.profile`` reads them (npz), whole or not at all.

    Keys: ``counts`` uint32 and ``mass`` float32 [rows, layers, experts], ``layers`` int64,
    ``row_ids`` str, ``tokens`` int64 [rows], ``top_k`` int64, and one str array [rows] for each
    facet column ("" where a row has no value).
    """
    facets = {
        name: np.array([row.facets.get(name, "") for row in rows.rows], dtype=np.str_)
        for name in FACET_COLUMNS
    }
    arrays = {
        "counts": routing.counts.numpy().astype(np.uint32),
        "mass": routing.mass.numpy(),
        "layers": np.asarray(routing.layers, dtype=np.int64),
        "row_ids": np.array([row.row_id for row in rows.rows], dtype=np.str_),
        "tokens": np.asarray([len(row.input_ids) for row in rows.rows], dtype=np.int64),
        "top_k": np.asarray(routing.top_k, dtype=np.int64),
        **facets,
    }
    write_whole(file, lambda stream: np.savez(stream, **arrays))  # type: ignore[arg-type]

"""Which experts the rows of a set reach, by the model's own routing.

Counts are taken where the router's choice arrives: at the experts module, which gets, for each
token, the indices of its top-k experts and their weights. No padding token is ever counted,
because batches hold none (``workers.engine.rows.batches``).
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
from app.errors import NotFinite
from workers.engine.device import compute_device
from workers.engine.models.architecture import MoeLayer, moe_layers
from workers.engine.passes.forward import Progress, last_hidden
from workers.engine.rows.batches import PackedBatch
from workers.engine.rows.calibration_rows import FACET_COLUMNS, CalibrationRows

# After so many batches pairs counted in float32 are put aside.
EXACT_PASSES = 64

Routed = Callable[[int, torch.Tensor, torch.Tensor], None]


@dataclass(frozen=True)
class RoutingCounts:
    """Tokens routed to each expert by each row.

    ``counts`` int32 and ``mass`` float32, both [rows, MoE layers, experts]; ``mass`` is the sum
    of the router's weights for the tokens counted. ``layers`` are decoder layer indices.
    ``together`` int64 [MoE layers, experts, experts] counts the tokens routed to both of two
    experts; on its diagonal are the tokens of each. ``activations`` float32 [rows, hidden] is the
    mean of each row's last hidden states, None where it was not asked for.
    """

    layers: tuple[int, ...]
    top_k: int
    counts: torch.Tensor
    mass: torch.Tensor
    together: torch.Tensor
    activations: torch.Tensor | None = None

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
    signatures: dict[type[nn.Module], inspect.Signature] = {}

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kind = type(module)  # another one after linearization
        if kind not in signatures:
            signatures[kind] = inspect.signature(module.forward)
        bound = signatures[kind].bind(*args, **kwargs).arguments
        indices, weights = list(bound.values())[1:3]
        indices = indices.reshape(-1, indices.shape[-1])
        weights = weights.reshape(len(indices), -1)
        if weights.shape[-1] != indices.shape[-1]:  # scores of all experts, as gpt-oss had
            weights = weights.gather(1, indices)
        receive(position, indices, weights)

    return hook


class RoutingTally:
    """Counts of every row, filled batch by batch while a model runs.

    A batch's counts stay on the compute device until the next batch, so that the device is waited
    for once a batch; those of all rows are kept in RAM.
    """

    def __init__(self, layers: Sequence[MoeLayer], rows: int) -> None:
        self._layers = layers
        self._experts = layers[0].experts if layers else 0
        shape = (rows, len(layers), self._experts)
        self._counts = torch.zeros(shape, dtype=torch.int32)
        self._mass = torch.zeros(shape, dtype=torch.float32)
        pairs = (len(layers), self._experts, self._experts)
        self._together = torch.zeros(pairs, dtype=torch.float32, device=compute_device())
        self._passes = 0
        self._together_before = torch.zeros(pairs, dtype=torch.int64)
        self._first = 0
        self._row_of_token = torch.empty(0, dtype=torch.int64)
        self._of_batch: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def before(self, batch: PackedBatch) -> None:
        """What is routed from now on are this batch's tokens."""
        self._flush()
        self._first = int(batch.row_of_token[0])  # the rows of a batch are neighbours
        self._row_of_token = (batch.row_of_token - self._first).to(compute_device())

    def receive(self, position: int, indices: torch.Tensor, weights: torch.Tensor) -> None:
        """Count what ``routed_tokens`` saw."""
        cell = (self._row_of_token[:, None] * self._experts + indices).flatten()
        if position not in self._of_batch:
            size = (self._rows_of_batch * self._experts,)
            zeros = torch.zeros(size, dtype=torch.int32, device=cell.device)
            self._of_batch[position] = (zeros, zeros.float())
        counts, mass = self._of_batch[position]
        counts.index_add_(0, cell, torch.ones_like(cell, dtype=torch.int32))
        mass.index_add_(0, cell, weights.float().flatten())
        chosen = torch.zeros(len(indices), self._experts, device=cell.device)
        chosen.scatter_(1, indices, 1.0)
        self._together[position].addmm_(chosen.T, chosen)

    def result(self, activations: torch.Tensor | None = None) -> RoutingCounts:
        """The counts of all batches that ran."""
        self._flush()
        return RoutingCounts(
            layers=tuple(layer.index for layer in self._layers),
            top_k=self._layers[0].top_k if self._layers else 0,
            counts=self._counts,
            mass=self._mass,
            together=self._together_before + self._together.long().cpu(),
            activations=activations,
        )

    @property
    def _rows_of_batch(self) -> int:
        return int(self._row_of_token[-1]) + 1

    def _flush(self) -> None:
        for position, (counts, mass) in self._of_batch.items():
            rows = slice(self._first, self._first + len(counts) // self._experts)
            self._counts[rows, position] += counts.view(-1, self._experts).cpu()
            self._mass[rows, position] += mass.view(-1, self._experts).cpu()
        self._of_batch.clear()
        self._passes += 1
        if self._passes % EXACT_PASSES == 0:  # float32 counts to 2²⁴ only
            self._together_before += self._together.long().cpu()
            self._together.zero_()


@torch.no_grad()
def count_routing(
    model: PreTrainedModel,
    batches: Sequence[PackedBatch],
    rows: int,
    progress: Progress | None = None,
) -> RoutingCounts:
    """Count what the model's own routing does with every row, and keep where its rows lie in
    activation space.

    A dense model has no experts to count: its arrays have no layers, top-k is 0, and nothing runs.
    Raises NotFinite when a row's hidden states are NaN or infinite.
    """
    layers = moe_layers(model)
    tally = RoutingTally(layers, rows)
    if not layers:
        return tally.result()
    means: list[torch.Tensor] = []
    with routed_tokens(model, layers, tally.receive):
        passes = last_hidden(model, batches, tally.before, progress)
        for batch, hidden in zip(batches, passes, strict=True):
            means.append(_mean_by_row(batch, hidden))
    activations = torch.cat(means)
    _refuse_not_finite(activations)
    return tally.result(activations)


def _refuse_not_finite(activations: torch.Tensor) -> None:
    wrong = (~activations.isfinite().all(dim=1)).nonzero().flatten().tolist()
    if wrong:
        raise NotFinite(
            f"The model gives NaN or infinity on {len(wrong):,} of the set's {len(activations):,} "
            f"rows, first on row {wrong[0] + 1:,}: where its routers send such tokens means "
            "nothing. Check the model's weights and the type it is computed in."
        )


def _mean_by_row(batch: PackedBatch, hidden: torch.Tensor) -> torch.Tensor:
    """The mean of the hidden states [tokens, hidden] of each row of a batch, float32 in RAM."""
    of_token = (batch.row_of_token - batch.row_of_token[0]).to(hidden.device)
    rows = int(batch.row_of_token[-1] - batch.row_of_token[0]) + 1
    sums = torch.zeros(rows, hidden.shape[-1], dtype=torch.float32, device=hidden.device)
    sums.index_add_(0, of_token, hidden.float())
    return (sums / of_token.bincount(minlength=rows)[:, None]).cpu()


def write_coverage(file: Path, routing: RoutingCounts, rows: CalibrationRows, model: str) -> None:
    """Write the counts as ``app.coverage.profile`` reads them (npz), whole or not at all.

    Keys: ``counts`` uint16 (uint32 where a row is too long for it) and ``mass`` float32 [rows,
    layers, experts], ``layers`` int64, ``row_ids`` str, ``tokens`` int64 [rows], ``top_k`` int64,
    one str array [rows] for each facet column ("" where a row has no value), ``model`` and
    ``set``, the fingerprint of the model and the id of the set, ``together`` uint32 [layers,
    experts, experts], and ``activations`` float16 [rows, hidden] where they were kept.
    """
    facets = {
        name: np.array([row.facets.get(name, "") for row in rows.rows], dtype=np.str_)
        for name in FACET_COLUMNS
    }
    counts = routing.counts.numpy()
    narrow = int(counts.max(initial=0)) <= np.iinfo(np.uint16).max
    arrays = {
        "counts": counts.astype(np.uint16 if narrow else np.uint32),
        "mass": routing.mass.numpy(),
        "layers": np.asarray(routing.layers, dtype=np.int64),
        "row_ids": np.array([row.row_id for row in rows.rows], dtype=np.str_),
        "tokens": np.asarray([len(row.input_ids) for row in rows.rows], dtype=np.int64),
        "top_k": np.asarray(routing.top_k, dtype=np.int64),
        "model": np.asarray(model, dtype=np.str_),
        "set": np.asarray(rows.id, dtype=np.str_),
        "together": routing.together.numpy().astype(np.uint32),
        **facets,
    }
    if routing.activations is not None:
        arrays["activations"] = routing.activations.numpy().astype(np.float16)
    write_whole(file, lambda stream: np.savez(stream, **arrays))  # type: ignore[arg-type]

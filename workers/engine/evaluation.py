"""How far the quantized model is from the original, on rows that calibration did not see.

KL(original ‖ quantized) of the next-token distributions, in nats, from float32 log-softmax summed
in float64. Each token that has a next token in its row counts once; figures over rows are sums
over sums, so a long row weighs as much as its tokens. Intervals are 95 % percentile intervals of a
seeded bootstrap over rows (Efron and Tibshirani 1993, chapter 13).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from app.errors import CompositionRefused
from app.facets import Facet
from app.jobs.spec import Evaluation, RouterAgreement, SliceDivergence
from workers.engine.architecture import MoeLayer, moe_layers
from workers.engine.batches import PackedBatch
from workers.engine.calibration_rows import CalibrationRows
from workers.engine.device import compute_device
from workers.engine.forward import Progress, last_hidden
from workers.engine.routing import routed_tokens

RESAMPLES = 1000
SMALLEST_SLICE = 2
LOGITS_A_CHUNK = 256


@dataclass
class RowSums:
    """Sums over the tokens of each row, float64 [rows]: KL, negative log-likelihood under the
    original and under the quantized model, and the number of tokens."""

    kl: np.ndarray
    loss_base: np.ndarray
    loss: np.ndarray
    tokens: np.ndarray

    @classmethod
    def empty(cls, rows: int) -> RowSums:
        """Nothing measured yet."""
        return cls(*(np.zeros(rows) for _ in range(4)))


@dataclass(frozen=True)
class Observed:
    """What a model makes of some rows: for each batch the last hidden states [tokens, hidden] and
    each mixture's top-k sets int16 [tokens, top-k], sorted, both kept in RAM; and the head that
    makes logits of hidden states."""

    batches: Sequence[PackedBatch]
    layers: list[MoeLayer]
    hidden: list[torch.Tensor]
    chosen: list[dict[int, torch.Tensor]]
    head: nn.Module


@torch.no_grad()
def observe(
    model: PreTrainedModel, batches: Sequence[PackedBatch], progress: Progress | None = None
) -> Observed:
    """Run the rows through a model once. Two observations are enough to compare two models, so
    only one of them is ever in memory."""
    layers = moe_layers(model)
    chosen: list[dict[int, torch.Tensor]] = [{} for _ in batches]
    numbers = {id(batch): number for number, batch in enumerate(batches)}
    at = 0

    def before(batch: PackedBatch) -> None:
        nonlocal at
        at = numbers[id(batch)]

    def receive(position: int, indices: torch.Tensor, _: torch.Tensor) -> None:
        chosen[at][position] = indices.sort(dim=-1).values.to("cpu", torch.int16)

    with routed_tokens(model, layers, receive):
        hidden = [found.cpu() for found in last_hidden(model, batches, before, progress)]
    return Observed(batches, layers, hidden, chosen, _head_of(model))


def _head_of(model: PreTrainedModel) -> nn.Module:
    """The output embeddings, where logits are computed."""
    head: nn.Module = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    device = compute_device()
    return head if model.device.type == device.type else copy.deepcopy(head).to(device)


@torch.no_grad()
def compare(
    original: Observed, quantized: Observed, rows: CalibrationRows, seed: int = 0
) -> Evaluation:
    """Compare what two models made of the same batches of the rows.

    Raises CompositionRefused when no row has two tokens.
    """
    sums = RowSums.empty(len(rows.rows))
    for batch, exact, found in zip(
        original.batches, original.hidden, quantized.hidden, strict=True
    ):
        _add_batch(sums, batch, (original.head, exact), (quantized.head, found))
    if not sums.tokens.any():
        raise CompositionRefused("No held-out row has two tokens, so nothing can be predicted.")
    return _evaluation(sums, rows, _agreement(original, quantized), seed)


def _add_batch(
    sums: RowSums,
    batch: PackedBatch,
    original: tuple[nn.Module, torch.Tensor],
    quantized: tuple[nn.Module, torch.Tensor],
) -> None:
    """Add a batch, a few hundred positions at a time, so that the logits of a large vocabulary
    are never held for all of it."""
    last_of_row = torch.ones_like(batch.row_of_token, dtype=torch.bool)
    last_of_row[:-1] = batch.row_of_token[1:] != batch.row_of_token[:-1]
    positions = (~last_of_row).nonzero().flatten()
    for chunk in torch.split(positions, LOGITS_A_CHUNK):
        log_p = _log_probabilities(*original, chunk)
        log_q = _log_probabilities(*quantized, chunk)
        following = batch.input_ids[0, chunk + 1].to(log_p.device)[:, None]
        kl = (log_p.exp() * (log_p - log_q)).sum(dim=-1)
        rows = batch.row_of_token[chunk].numpy()
        for total, values in (
            (sums.kl, kl),
            (sums.loss_base, -log_p.gather(1, following)[:, 0]),
            (sums.loss, -log_q.gather(1, following)[:, 0]),
            (sums.tokens, torch.ones_like(kl)),
        ):
            np.add.at(total, rows, values.double().cpu().numpy())


def _log_probabilities(
    head: nn.Module, hidden: torch.Tensor, positions: torch.Tensor
) -> torch.Tensor:
    weight = cast(torch.Tensor, head.weight)
    return torch.log_softmax(head(hidden[positions].to(weight.device)).float(), dim=-1)


def _agreement(original: Observed, quantized: Observed) -> list[RouterAgreement]:
    """The share of tokens with the same top-k set in both models, layer by layer."""
    same, total = [0] * len(original.layers), [0] * len(original.layers)
    for exact, found in zip(original.chosen, quantized.chosen, strict=True):
        for position, sets in exact.items():
            same[position] += int((sets == found[position]).all(dim=-1).sum())
            total[position] += len(sets)
    return [
        RouterAgreement(layer=layer.index, share=same[at] / total[at])
        for at, layer in enumerate(original.layers)
    ]


def _evaluation(
    sums: RowSums, rows: CalibrationRows, agreement: list[RouterAgreement], seed: int
) -> Evaluation:
    tokens = sums.tokens.sum()
    everything = np.arange(len(sums.tokens))
    mean, low, high = mean_with_interval(sums, everything, seed)
    return Evaluation(
        rows=int((sums.tokens > 0).sum()),
        tokens=int(tokens),
        kl_mean=mean,
        kl_low=low,
        kl_high=high,
        perplexity_base=math.exp(min(sums.loss_base.sum() / tokens, 700)),
        perplexity=math.exp(min(sums.loss.sum() / tokens, 700)),
        slices=_slices(sums, rows, seed),
        router_same=agreement,
    )


def _slices(sums: RowSums, rows: CalibrationRows, seed: int) -> list[SliceDivergence]:
    found = []
    for facet in Facet:
        members: dict[str, list[int]] = {}
        for at, row in enumerate(rows.rows):
            if row.facets.get(facet.value) and sums.tokens[at]:
                members.setdefault(row.facets[facet.value], []).append(at)
        for value, indices in sorted(members.items()):
            if len(indices) >= SMALLEST_SLICE:
                mean, low, high = mean_with_interval(sums, np.asarray(indices), seed)
                found.append(
                    SliceDivergence(
                        facet=facet.value,
                        value=value,
                        rows=len(indices),
                        kl_mean=mean,
                        kl_low=low,
                        kl_high=high,
                    )
                )
    return found


def mean_with_interval(
    sums: RowSums, indices: Sequence[int] | np.ndarray, seed: int
) -> tuple[float, float, float]:
    """Mean KL a token over the rows ``indices``, and its 95 % bootstrap interval over rows."""
    indices = np.asarray(indices)
    indices = indices[sums.tokens[indices] > 0]
    kl, tokens = sums.kl[indices], sums.tokens[indices]
    draws = np.random.default_rng(seed).integers(len(indices), size=(RESAMPLES, len(indices)))
    means = kl[draws].sum(axis=1) / tokens[draws].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(kl.sum() / tokens.sum()), float(low), float(high)

"""How far the quantized model is from the original, on rows that calibration did not see.

KL(original ‖ quantized) of the next-token distributions, in nats, from float32 log-softmax summed
in float64. Each token that has a next token in its row counts once; figures over rows are sums
over sums, so a long row weighs as much as its tokens. Intervals are 95 % percentile intervals of a
seeded bootstrap over rows (Efron and Tibshirani 1993, chapter 13).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from app.errors import CompositionRefused
from app.facets import Facet
from app.jobs.spec import Evaluation, RouterAgreement, SliceDivergence
from workers.engine.architecture import MoeLayer, moe_layers
from workers.engine.batches import PackedBatch, pack_for
from workers.engine.calibration_rows import CalibrationRows
from workers.engine.routing import routed_tokens

RESAMPLES = 1000
SMALLEST_SLICE = 2
LOGITS_A_CHUNK = 256

Progress = Callable[[int, int], None]


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


@torch.no_grad()
def evaluate(
    base: PreTrainedModel,
    quantized: PreTrainedModel,
    rows: CalibrationRows,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Compare two models on the rows, batch by batch, both on the device they are on.

    Raises CompositionRefused when no row has two tokens.
    """
    batches = pack_for(base, rows.rows)
    sums = RowSums.empty(len(rows.rows))
    agreement = _Agreement(moe_layers(base))
    for done, batch in enumerate(batches, start=1):
        with routed_tokens(base, agreement.layers, agreement.first):
            hidden_base = _last_hidden(base, batch)
        with routed_tokens(quantized, moe_layers(quantized), agreement.second):
            hidden = _last_hidden(quantized, batch)
        agreement.compare()
        _add_batch(sums, batch, base, hidden_base, quantized, hidden)
        if progress is not None:
            progress(done, len(batches))
    if not sums.tokens.any():
        raise CompositionRefused("No held-out row has two tokens, so nothing can be predicted.")
    return _evaluation(sums, rows, agreement, seed)


def _last_hidden(model: PreTrainedModel, batch: PackedBatch) -> torch.Tensor:
    output = model.base_model(
        input_ids=batch.input_ids.to(model.device),
        position_ids=batch.position_ids.to(model.device),
        use_cache=False,
    )
    return output.last_hidden_state[0]  # type: ignore[no-any-return]


def _add_batch(
    sums: RowSums,
    batch: PackedBatch,
    base: PreTrainedModel,
    hidden_base: torch.Tensor,
    quantized: PreTrainedModel,
    hidden: torch.Tensor,
) -> None:
    """Add a batch, a few hundred positions at a time, so that the logits of a large vocabulary
    are never held for all of it."""
    last_of_row = torch.ones_like(batch.row_of_token, dtype=torch.bool)
    last_of_row[:-1] = batch.row_of_token[1:] != batch.row_of_token[:-1]
    positions = (~last_of_row).nonzero().flatten()
    for chunk in torch.split(positions, LOGITS_A_CHUNK):
        following = batch.input_ids[0, chunk + 1].to(hidden.device)[:, None]
        log_p = _log_probabilities(base, hidden_base[chunk])
        log_q = _log_probabilities(quantized, hidden[chunk]).to(log_p.device)
        kl = (log_p.exp() * (log_p - log_q)).sum(dim=-1)
        rows = batch.row_of_token[chunk].numpy()
        for total, values in (
            (sums.kl, kl),
            (sums.loss_base, -log_p.gather(1, following.to(log_p.device))[:, 0]),
            (sums.loss, -log_q.gather(1, following.to(log_q.device))[:, 0]),
            (sums.tokens, torch.ones_like(kl)),
        ):
            np.add.at(total, rows, values.double().cpu().numpy())


def _log_probabilities(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    return torch.log_softmax(head(hidden).float(), dim=-1)


class _Agreement:
    """Counts, for each MoE layer, the tokens whose top-k set is the same in both models."""

    def __init__(self, layers: list[MoeLayer]) -> None:
        self.layers = layers
        self.same = [0] * len(layers)
        self.total = [0] * len(layers)
        self._seen: tuple[dict[int, torch.Tensor], dict[int, torch.Tensor]] = ({}, {})

    def first(self, position: int, indices: torch.Tensor, _: torch.Tensor) -> None:
        """Take in the original's choice."""
        self._seen[0][position] = indices.sort(dim=-1).values.cpu()

    def second(self, position: int, indices: torch.Tensor, _: torch.Tensor) -> None:
        """Take in the quantized model's choice."""
        self._seen[1][position] = indices.sort(dim=-1).values.cpu()

    def compare(self) -> None:
        """Count the batch both models have just gone through."""
        for position, chosen in self._seen[0].items():
            equal = (chosen == self._seen[1][position]).all(dim=-1)
            self.same[position] += int(equal.sum())
            self.total[position] += len(equal)
        for seen in self._seen:
            seen.clear()

    def report(self) -> list[RouterAgreement]:
        """The share of tokens with the same set, layer by layer."""
        return [
            RouterAgreement(layer=layer.index, share=same / total)
            for layer, same, total in zip(self.layers, self.same, self.total, strict=True)
        ]


def _evaluation(
    sums: RowSums, rows: CalibrationRows, agreement: _Agreement, seed: int
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
        router_same=agreement.report(),
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

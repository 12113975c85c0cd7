"""AWQ's scale search for mappings whose parent is one Linear, by its inputs' Gram matrix.

The parent of an up → down mapping is the Linear ``down`` alone, so AWQ's loss of a scale s,
‖X Wᵀ − X Q(W·s)ᵀ/s‖² over the tokens X, is tr(D G Dᵀ) with G = XᵀX and D = W − Q(W·s)/s: no
activation needs to be kept, and no forward run, whatever the number of tokens. All experts of a
layer are searched at once. Scales are computed with the operations of llmcompressor's
``AWQModifier._compute_best_scale`` on stacked tensors, so the weights chosen are the same; the
loss alone differs, in its last bits, because it is summed in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from compressed_tensors.quantization import QuantizationArgs

from workers.engine.formats.rounding import Rounder, chunks

GridPoint = tuple[float, bool]


@dataclass
class InputStatistics:
    """What the tokens of one Linear leave behind: ``absolute_sum`` float32 [in], ``count`` int64
    scalar, ``gram`` float32 [in, in], each on the Linear's device."""

    absolute_sum: torch.Tensor
    count: torch.Tensor
    gram: torch.Tensor

    @classmethod
    def empty(cls, columns: int, device: torch.device) -> InputStatistics:
        """No token seen yet."""
        return cls(
            absolute_sum=torch.zeros(columns, device=device),
            count=torch.zeros((), dtype=torch.int64, device=device),
            gram=torch.zeros(columns, columns, device=device),
        )

    def add(self, inputs: torch.Tensor) -> None:
        """Take in a batch of inputs [..., in]."""
        tokens = inputs.detach().flatten(0, -2)
        if len(tokens) == 0:
            return
        self.absolute_sum += tokens.abs().float().sum(dim=0)
        self.count += len(tokens)
        tokens = tokens.float()
        self.gram.addmm_(tokens.T, tokens)


@dataclass(frozen=True)
class SearchResult:
    """The best scales of each Linear (a list of [in], float64 with duo scaling) and the loss
    before (weights quantized unscaled) and after, float64 [linears], mean square per output."""

    scales: list[torch.Tensor]
    initial_error: torch.Tensor
    best_error: torch.Tensor


@torch.no_grad()
def search_scales(
    weights: torch.Tensor,
    weight_means: torch.Tensor,
    statistics: Sequence[InputStatistics],
    args: QuantizationArgs,
    grid: Sequence[GridPoint],
) -> SearchResult:
    """Search the scales of several Linears of one shape at once.

    ``weights`` [linears, out, in], ``weight_means`` float64 [linears, in] as
    ``AWQModifier._compute_layer_means`` gives them, ``statistics`` one for each Linear. A Linear
    whose inputs were not finite gets an infinite error.
    """
    counts = torch.stack([each.count for each in statistics])
    means = torch.stack([each.absolute_sum for each in statistics]) / counts[:, None]
    grams = torch.stack([each.gram for each in statistics])
    rounder = Rounder(args)
    outputs = counts * weights.shape[1]
    best_error = torch.full((len(weights),), torch.inf, device=weights.device)
    initial_error: torch.Tensor | None = None
    best = torch.ones_like(weight_means)
    for ratio, duo in grid:
        scales = grid_scales(means, weight_means, ratio, duo)
        error = _loss(weights, scales, grams, rounder) / outputs
        initial_error = error if initial_error is None else initial_error
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best = torch.where(better[:, None], scales.to(best.dtype), best)
    assert initial_error is not None, "the grid has at least one point"
    return SearchResult(list(best.unbind()), initial_error.double(), best_error.double())


def grid_scales(
    means: torch.Tensor, weight_means: torch.Tensor, ratio: float, duo: bool
) -> torch.Tensor:
    """The scales [..., in] of one grid point, as ``AWQModifier`` computes them: ``means`` of the
    inputs' magnitudes, ``weight_means`` float64 of the weights'."""
    if duo:
        scales = (means.pow(ratio) / (weight_means.pow(1 - ratio) + 1e-4)).clamp(min=1e-4)
    else:
        scales = means.pow(ratio).clamp(min=1e-4)
    scales = scales / (scales.amax(-1, keepdim=True) * scales.amin(-1, keepdim=True)).sqrt()
    scales[torch.isinf(scales)] = 1
    scales[torch.isnan(scales)] = 1
    return scales


def _loss(
    weights: torch.Tensor, scales: torch.Tensor, grams: torch.Tensor, rounder: Rounder
) -> torch.Tensor:
    """tr(D G Dᵀ) of each Linear, float32 [linears]."""
    losses = []
    for part in chunks(weights):
        mine = weights[part]
        rounded = rounder.scaled(mine, scales[part], rounder.scratch("rounded", mine, mine.dtype))
        difference = rounded.sub_(mine).float()
        product = rounder.scratch("product", difference, difference.dtype)
        torch.bmm(difference, grams[part], out=product)
        losses.append(product.mul_(difference).sum(dim=(1, 2)))
    return torch.cat(losses)

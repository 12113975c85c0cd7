"""How long a quantize job will take, from shapes alone.

Time is counted in multiply-accumulates of matrix products and in weights rounded by the search,
each divided by a speed measured on the machine (``workers.engine.preflight.measurement``). The
counts are those of ``workers.engine.awq.modifier``: with E experts of which a token takes k, each
of P weights, gate and up being U of them, an expert's inner width m, and g grid points, a token
costs in one layer

- k · P for the coverage and for the calibration pass, and E · P (every token through every
  expert) or k · P to carry it on;
- n · (U + m²) for the experts' statistics, n being E or k;
- s · (g + 1) · k · P for the norm's grid, s being the share of tokens it is tried on;

and as much again as the layer's other weights take in each of these passes. Attention holds every
token of a batch against every other, in each of the passes and for every point of a grid whose norm
it reads; a batch holds at least one whole row, so long rows are counted by their squares.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from workers.engine.awq.modifier import FAST_SHARE
from workers.engine.models.architecture import MoeLayer, layer_index, moe_layers
from workers.engine.plan.mappings import TreeMapping
from workers.engine.plan.plan import Plan, carries_every_token, grid_points
from workers.engine.preflight.lengths import Lengths
from workers.engine.preflight.resources import heads_of

# What masking a score and its softmax take, in multiply-accumulates.
SCORE_MACS = 64


@dataclass(frozen=True)
class Work:
    """``macs`` multiply-accumulates, ``rounded`` weights rounded by grid searches."""

    macs: float
    rounded: float


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


def work_of(model: PreTrainedModel, plan: Plan, rows: Lengths) -> Work:
    """The work of a whole job: coverage, quantization and evaluation."""
    matrices = Matrices(model)
    active = matrices.a_token()
    carried = matrices.a_token(every_expert=carries_every_token(plan.recipe))
    layers, attention = len(matrices.layers), _attention(model)
    macs = rows.tokens * (2 * active + carried) + 3.0 * layers * attention * rows.pairs
    a_token = rows.pairs / max(1, rows.tokens)
    macs += 2 * rows.held_out * (active + layers * attention * a_token)
    points = grid_points(plan.recipe)
    rounded = 0.0
    for mapping in plan.mappings:
        macs += rows.tokens * _search(model, mapping, matrices, plan, points)
        if not mapping.token_wise:
            macs += _tried(plan) * (points + 1) * attention * rows.pairs
        balance = (n for n in mapping.balance if n in plan.modules)
        rounded += points * sum(model.get_parameter(f"{name}.weight").numel() for name in balance)
    return Work(macs, rounded)


def _attention(model: PreTrainedModel) -> int:
    """Multiply-accumulates of one layer's attention for a pair of tokens, besides its
    projections."""
    heads, width = heads_of(model)
    return heads * (2 * width + SCORE_MACS)


def _tried(plan: Plan) -> float:
    """The share of the tokens that a norm's scales are tried on."""
    return FAST_SHARE if plan.recipe.search == "fast" else 1.0


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
    return _tried(plan) * (points + 1) * matrices.a_token(under=f"{mapping.parent}.")

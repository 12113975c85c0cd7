"""The weights of one grid point, where the parent's forward finds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from workers.engine.awq.experts_forward import ExpertsRuns, Stacked, captures, is_plain, members_of
from workers.engine.awq.smoothing import args_of, is_quantized, weight_of
from workers.engine.formats.rounding import Rounder, chunks


@dataclass
class _Stack:
    """The gate and up projections of an experts module, each as one tensor [experts, 2 ·
    intermediate, hidden]: their own weights and the rounded ones of a grid point."""

    experts: Any
    rounder: Rounder
    originals: torch.Tensor
    rounded: torch.Tensor

    def set(self, scales: torch.Tensor) -> None:
        for part in chunks(self.rounded):
            self.rounder.scaled(self.originals[part], scales, self.rounded[part])


class Trial:
    """Puts Q(W · s) / s in the place of every quantized balance layer of a mapping.

    Experts are rounded together, in a stack their forward reads; other layers in their own
    weights, of which ``originals`` are copies. Those of the experts are moved to the stack.
    """

    def __init__(
        self,
        parent: nn.Module,
        balance: Sequence[nn.Module],
        originals: dict[nn.Module, torch.Tensor],
        runs: ExpertsRuns,
    ) -> None:
        quantized = [layer for layer in balance if is_quantized(layer)]
        found = [
            _stack(module, set(quantized), originals)
            for module in parent.modules()
            if captures(module)
        ]
        self._stacks = [stack for stack in found if stack is not None]
        stacked = {
            projection
            for stack in self._stacks
            for expert in members_of(stack.experts)
            for projection in _gate_and_up(expert)
        }
        self._single = [(each, Rounder(args_of(each))) for each in quantized if each not in stacked]
        self._originals = originals
        self._runs = runs

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let the experts' forward read the stacks; afterwards every layer has its own weight."""
        self._runs.trial = {
            stack.experts: Stacked.of(stack.experts, stack.rounded) for stack in self._stacks
        }
        try:
            yield
        finally:
            self._runs.trial = {}
            for layer, _ in self._single:
                weight_of(layer).copy_(self._originals[layer])

    def set(self, scales: torch.Tensor) -> None:
        """Take the grid point with these scales [in]."""
        for stack in self._stacks:
            stack.set(scales)
        for layer, rounder in self._single:
            weight = weight_of(layer)
            rounder.scaled(self._originals[layer], scales, weight)


def _gate_and_up(expert: Any) -> tuple[Any, Any]:
    return expert.gate_proj, expert.up_proj


def _stack(
    experts: Any, quantized: set[nn.Module], originals: dict[nn.Module, torch.Tensor]
) -> _Stack | None:
    """A stack for experts whose gates and ups are all rounded alike and have no bias. Their
    ``originals`` become parts of it, so that weights are not held twice."""
    members = members_of(experts)
    if not all(is_plain(expert) for expert in members):
        return None
    projections = [each for expert in members for each in _gate_and_up(expert)]
    if not quantized.issuperset(projections) or any(each.bias is not None for each in projections):
        return None
    args = args_of(projections[0])
    if any(args_of(each) != args for each in projections):
        return None
    first = originals[projections[0]]
    stacked = first.new_empty((len(members), 2 * first.shape[0], first.shape[1]))
    halves = (half for both in stacked for half in both.chunk(2))
    for projection, half in zip(projections, halves, strict=True):
        originals[projection] = half.copy_(originals[projection])
    return _Stack(experts, Rounder(args), stacked, torch.empty_like(stacked))

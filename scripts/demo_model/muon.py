"""Muon for stacks of matrices: torch.optim.Muon takes 2-D parameters, experts are stacks."""

from __future__ import annotations

from collections.abc import Iterable

import torch

# Quintic Newton-Schulz coefficients of Keller Jordan's Muon (2024), for five steps.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalized(matrices: torch.Tensor) -> torch.Tensor:
    """The nearest semi-orthogonal matrix, roughly, of each in (..., rows, columns)."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: torch.Tensor = x.mT if tall else x
    return result


class StackedMuon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay on (..., rows, columns) parameters.

    A fused gate and up projection, (experts, 2 x intermediate, hidden), is orthogonalized as the
    two matrices it holds; name such parameters in ``fused``.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        fused: Iterable[torch.nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
    ) -> None:
        single = {"params": list(parameters), "halves": 1}
        double = {"params": list(fused), "halves": 2}
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__([single, double], defaults)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Move every parameter by lr x sqrt(max(1, rows / columns)) along its momentum."""
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                momentum = self.state[parameter].setdefault("m", torch.zeros_like(gradient))
                momentum.lerp_(gradient, 1 - group["momentum"])
                direction = gradient.lerp(momentum, group["momentum"])
                parts = direction.unflatten(-2, (group["halves"], -1))
                scale = max(1.0, parts.shape[-2] / parts.shape[-1]) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(orthogonalized(parts).flatten(-3, -2), alpha=group["lr"] * scale)

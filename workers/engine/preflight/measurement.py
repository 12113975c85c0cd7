"""How fast this machine is, measured for a second or two."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from app.recipes.schema import Group
from workers.engine.formats.rounding import Rounder
from workers.engine.plan.targets import weight_args

MEASURED_SECONDS = 0.4
TOKENS = 128
LARGEST = 4_096


@dataclass(frozen=True)
class Speed:
    """Multiply-accumulates and rounded weights a second."""

    macs: float
    rounded: float


@torch.no_grad()
def measure(rows: int, columns: int, group: Group, dtype: torch.dtype) -> Speed:
    """The speed of a gated MLP of [rows, columns] and back on some tokens, and of rounding one of
    its weights, on the device the engine computes on."""
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    rows, columns = min(rows, LARGEST), _usable(min(columns, LARGEST), group)
    weight = torch.randn(rows, columns, device=device, dtype=dtype)
    tokens = torch.randn(TOKENS, columns, device=device, dtype=dtype)
    order = torch.randperm(TOKENS, device=device)
    rounder, scales = Rounder(weight_args(group)), torch.ones(columns, device=device).double()
    rounded = torch.empty_like(weight)

    def multiply() -> None:
        gate, up = tokens @ weight.T, tokens @ weight.T
        torch.index_add(tokens, 0, order, (torch.nn.functional.silu(gate) * up) @ weight)

    def round_weights() -> None:
        rounder.scaled(weight, scales, rounded)

    return Speed(
        macs=3 * TOKENS * weight.numel() / _seconds(multiply, device),
        rounded=weight.numel() / _seconds(round_weights, device),
    )


def _usable(columns: int, group: Group) -> int:
    size = group.group_size or columns
    return max(size, columns - columns % size)


def _seconds(action: Callable[[], None], device: torch.device) -> float:
    """The time one call takes, over as many as fit a fraction of a second."""
    action()
    calls, since = 0, time.perf_counter()
    while time.perf_counter() - since < MEASURED_SECONDS:
        action()
        calls += 1
        if device.type != "cpu":
            torch.accelerator.synchronize()
    return (time.perf_counter() - since) / calls

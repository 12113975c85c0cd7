"""What a norm does with its weight, found by calling it.

Most norms give normed · weight. Those that call themselves zero-centred (Gemma, Qwen3-Next,
Nemotron, MiniMax-M3) give normed · (1 + weight), so a scale divides 1 + weight and not the weight.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from workers.engine.plan.readers import Call, random_copy

# Sums and halves of sixteenths are exact in float32, so an answer is told from a near one.
STEPS = 16

Kind = Literal["plain", "offset"]


@torch.no_grad()
def norm_kind(norm: nn.Module, call: Call) -> Kind | None:
    """How a norm's output follows from its weight, tried on a copy with random values called as
    the norm was in ``call``: "plain" when halving weight and bias halves the output, "offset" when
    halving 1 + weight and the bias does; None when neither, so it cannot be smoothed."""
    (twin,) = random_copy(norm)
    generator = torch.Generator().manual_seed(0)
    for parameter in twin.parameters():
        drawn = torch.randint(-STEPS, STEPS, parameter.shape, generator=generator)
        parameter.copy_(drawn / STEPS)

    def tried(value: object) -> object:
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return value
        return torch.randn(value.shape, generator=generator)

    args = tuple(map(tried, call[0]))
    kwargs = {name: tried(value) for name, value in call[1].items()}
    whole = twin(*args, **kwargs)
    own = {name: value.clone() for name, value in twin.named_parameters()}
    kinds: dict[Kind, float] = {"plain": 0.0, "offset": 1.0}
    for kind, one in kinds.items():
        for name, parameter in twin.named_parameters():
            shift = one if name == "weight" else 0.0
            parameter.copy_((own[name] + shift) / 2 - shift)
        if torch.equal(2 * twin(*args, **kwargs), whole):
            return kind
    return None

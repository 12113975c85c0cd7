"""The forward of linearized experts, without the work nobody looks at.

llmcompressor's ``LinearExperts2D.forward`` finds each expert's tokens by scanning a one-hot mask
of tokens × top-k × experts, once an expert. Here the tokens are sorted by expert once, and the
sorting is kept for the grid search, which routes the same tokens the same way at every point.
Outputs are added up in the order of experts, as stock does.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from compressed_tensors.utils import patch_attr
from torch import nn

from workers.engine.library_output import hush

hush()

from llmcompressor.modeling.moe import context  # noqa: E402
from llmcompressor.modeling.moe.linear_experts import (  # noqa: E402
    ExpertMLPWithGate,
    LinearExperts2D,
)
from llmcompressor.modifiers.utils.hooks import HooksMixin  # noqa: E402

PLANS_KEPT = 16


@dataclass(frozen=True)
class Dispatch:
    """Where tokens go: ``order`` sorts the top-k choices, first choices of all tokens first, by
    expert; ``tokens`` int64 [top-k · tokens] are the tokens in that order, ``bounds`` the slice of
    each expert. It is the order in which stock's scan finds an expert's tokens, so sums over them
    are the same to the last bit."""

    indices: torch.Tensor
    order: torch.Tensor
    tokens: torch.Tensor
    bounds: list[int]

    @classmethod
    def of(cls, indices: torch.Tensor, experts: int) -> Dispatch:
        """Sort the choices ``indices`` int64 [tokens, top-k]."""
        chosen = indices.T.flatten()
        order = chosen.argsort(stable=True)
        counts = torch.bincount(chosen, minlength=experts)
        bounds = [0, *counts.cumsum(0).tolist()]
        return cls(indices, order, order % len(indices), bounds)


@contextlib.contextmanager
def lean_experts() -> Iterator[None]:
    """Let linearized experts run by sorted tokens while "calibrate all experts" says which tokens.

    Experts with a forward of their own (Llama 4) keep it.
    """
    plans: dict[int, deque[Dispatch]] = {}

    def forward(
        self: Any, hidden: torch.Tensor, indices: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        kept = plans.setdefault(indices.numel(), deque(maxlen=PLANS_KEPT))
        dispatch = next((each for each in kept if torch.equal(each.indices, indices)), None)
        if dispatch is None:
            dispatch = Dispatch.of(indices, self.num_experts)
            kept.append(dispatch)
        every_token = context.get_calibrate_all_experts_flag()
        return run_experts(self, hidden, weights, dispatch, every_token)

    with patch_attr(LinearExperts2D, "forward", forward):
        yield


@contextlib.contextmanager
def natural_routing() -> Iterator[None]:
    """Turn "calibrate all experts" off: for the grid search, whose forwards are only compared.

    Their outputs are those of the model's own routing either way.
    """
    with patch_attr(context, "_CALIBRATE_ALL_EXPERTS", False):
        yield


def run_experts(
    experts: Any,
    hidden: torch.Tensor,
    weights: torch.Tensor,
    dispatch: Dispatch,
    every_token: bool,
) -> torch.Tensor:
    """The experts' weighted sum for every token: ``hidden`` [tokens, hidden], ``weights``
    [tokens, top-k]. ``every_token`` runs each expert on all tokens and throws the rest away: the
    same sum up to the rounding of a product of another height."""
    weight = weights.T.flatten()[dispatch.order, None]
    total = torch.zeros_like(hidden)
    for expert in range(experts.num_experts):
        begin, end = dispatch.bounds[expert : expert + 2]
        if begin == end and not every_token:
            continue
        tokens = dispatch.tokens[begin:end]
        if every_token:
            output = _run_expert(experts[expert], hidden).index_select(0, tokens)
        else:
            output = _run_expert(experts[expert], hidden.index_select(0, tokens))
        total.index_add_(0, tokens, (output * weight[begin:end]).to(total.dtype))
    return total


def _run_expert(expert: Any, tokens: torch.Tensor) -> torch.Tensor:
    """``ExpertMLPWithGate.forward``, with the projections called plainly where that is the same;
    experts of another kind run their own forward."""
    if type(expert).forward is not ExpertMLPWithGate.forward:
        output: torch.Tensor = expert(tokens)
        return output
    both = [_project(expert.gate_proj, tokens), _project(expert.up_proj, tokens)]
    return _project(expert.down_proj, expert._apply_gate(torch.cat(both, dim=-1)))


def _project(linear: nn.Linear, tokens: torch.Tensor) -> torch.Tensor:
    """A Linear without the layers of wrappers that offloading and quantization put around it,
    which cost as much as a small product; with them where a hook listens or it is quantized."""
    listened_to = linear._forward_hooks or linear._forward_pre_hooks
    if (listened_to and not HooksMixin._HOOKS_DISABLED) or _is_quantizing(linear):
        output: torch.Tensor = linear(tokens)
        return output
    return nn.functional.linear(tokens, linear.weight, linear.bias)


def _is_quantizing(linear: nn.Linear) -> bool:
    scheme = getattr(linear, "quantization_scheme", None)
    return scheme is not None and bool(getattr(linear, "quantization_enabled", True))

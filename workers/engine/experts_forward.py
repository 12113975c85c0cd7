"""The forward of linearized experts, without the work nobody looks at.

llmcompressor's ``LinearExperts2D.forward`` finds each expert's tokens by scanning a one-hot mask
of tokens × top-k × experts, once an expert. Here the tokens are sorted by expert once, and the
sorting is kept for the grid search, which routes the same tokens the same way at every point.
"Calibrate all experts" (every expert runs on every token, rows not routed to it are thrown away)
holds only while hooks watch: its outputs are those of the model's own routing. Outputs are added
up in the order of experts, as stock does.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from compressed_tensors.utils import patch_attr

from workers.engine.library_output import hush

hush()

from llmcompressor.modeling.moe import context  # noqa: E402
from llmcompressor.modeling.moe.linear_experts import LinearExperts2D  # noqa: E402
from llmcompressor.modifiers.utils.hooks import HooksMixin  # noqa: E402

PLANS_KEPT = 16


@dataclass(frozen=True)
class Dispatch:
    """Where tokens go: ``order`` sorts the flattened top-k choices by expert, ``tokens`` int64
    [tokens · top-k] are the tokens in that order, ``bounds`` the slice of each expert."""

    indices: torch.Tensor
    order: torch.Tensor
    tokens: torch.Tensor
    bounds: list[int]

    @classmethod
    def of(cls, indices: torch.Tensor, experts: int) -> Dispatch:
        """Sort the choices ``indices`` int64 [tokens, top-k]."""
        chosen = indices.flatten()
        order = chosen.argsort(stable=True)
        counts = torch.bincount(chosen, minlength=experts)
        bounds = [0, *counts.cumsum(0).tolist()]
        return cls(indices, order, order // indices.shape[-1], bounds)


@contextlib.contextmanager
def lean_experts() -> Iterator[None]:
    """Let linearized experts run by sorted tokens, and all experts on all tokens only when
    hooks watch. Experts with a forward of their own (Llama 4) keep it."""
    plans: dict[int, deque[Dispatch]] = {}

    def forward(
        self: Any, hidden: torch.Tensor, indices: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        kept = plans.setdefault(indices.numel(), deque(maxlen=PLANS_KEPT))
        dispatch = next((each for each in kept if torch.equal(each.indices, indices)), None)
        if dispatch is None:
            dispatch = Dispatch.of(indices, self.num_experts)
            kept.append(dispatch)
        return run_experts(self, hidden, weights, dispatch)

    with patch_attr(LinearExperts2D, "forward", forward):
        yield


def run_experts(
    experts: Any, hidden: torch.Tensor, weights: torch.Tensor, dispatch: Dispatch
) -> torch.Tensor:
    """The experts' weighted sum for every token: ``hidden`` [tokens, hidden], ``weights``
    [tokens, top-k]."""
    all_tokens = context.get_calibrate_all_experts_flag() and not HooksMixin._HOOKS_DISABLED
    weight = weights.flatten()[dispatch.order, None]
    outputs = hidden.new_empty(len(dispatch.tokens), hidden.shape[-1])
    for expert in range(experts.num_experts):
        begin, end = dispatch.bounds[expert : expert + 2]
        if begin == end and not all_tokens:
            continue
        tokens = dispatch.tokens[begin:end]
        if all_tokens:
            output = experts[expert](hidden).index_select(0, tokens)
        else:
            output = experts[expert](hidden.index_select(0, tokens))
        outputs[begin:end] = output * weight[begin:end]
    return torch.zeros_like(hidden).index_add_(0, dispatch.tokens, outputs)

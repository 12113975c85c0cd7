"""The forward of linearized experts, without the work nobody looks at.

llmcompressor's ``LinearExperts2D.forward`` finds each expert's tokens by scanning a one-hot mask
of tokens × top-k × experts, once an expert. Here the tokens are sorted by expert once, and the
sorting is kept for the grid search, which routes the same tokens the same way at every point.
Outputs are added up in the order of experts, as stock does. On an accelerator the grid search runs
all experts in one grouped product instead (``Stacked``), and asks the host nothing.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from compressed_tensors.utils import patch_attr
from llmcompressor.modeling.moe import context
from llmcompressor.modeling.moe.linear_experts import (
    ExpertMLPWithGate,
    LinearExperts2D,
)
from llmcompressor.modifiers.utils.hooks import HooksMixin
from torch import nn

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

    def tokens_of(self, expert: int) -> torch.Tensor:
        """The tokens routed to one expert, int64."""
        return self.tokens[self.bounds[expert] : self.bounds[expert + 1]]


@dataclass(frozen=True)
class ExpertsInput:
    """One batch as an experts module got it: ``hidden`` [tokens, hidden] and its dispatch."""

    hidden: torch.Tensor
    dispatch: Dispatch


@dataclass(frozen=True)
class Stacked:
    """An experts module's weights for a trial: ``gate_up`` [experts, 2 · intermediate, hidden],
    and ``down`` [experts, hidden, intermediate] where a grouped product can take both."""

    gate_up: torch.Tensor
    down: torch.Tensor | None

    @classmethod
    def of(cls, experts: Any, gate_up: torch.Tensor) -> Stacked:
        """Stack down as well if the device has grouped products of this dtype."""
        downs = [expert.down_proj for expert in members_of(experts)]
        if not has_grouped_products(gate_up) or any(each.bias is not None for each in downs):
            return cls(gate_up, None)
        return cls(gate_up, torch.stack([each.weight.data for each in downs]))


def has_grouped_products(weights: torch.Tensor) -> bool:
    """Whether ``torch.nn.functional.grouped_mm`` runs on the weights' device without asking the
    host for sizes: bfloat16 on CUDA from compute capability 9, rows aligned to 16 bytes."""
    if weights.device.type != "cuda" or weights.dtype != torch.bfloat16:
        return False
    aligned = all(size % 16 == 0 for size in weights.shape[1:])
    return aligned and torch.cuda.get_device_capability(weights.device) >= (9, 0)


@dataclass
class ExpertsRuns:
    """How linearized experts run while a model is calibrated.

    ``trial`` replaces the weights of an experts module by stacked ones; ``captured``, when it is a
    list, takes the inputs of experts that then do no work; those ``resting`` do none either.
    """

    trial: dict[nn.Module, Stacked] = field(default_factory=dict)
    resting: set[nn.Module] = field(default_factory=set)
    captured: dict[nn.Module, list[ExpertsInput]] | None = None
    _kept: dict[int, deque[Dispatch]] = field(default_factory=dict)

    def dispatch(self, indices: torch.Tensor, experts: int) -> Dispatch:
        """The dispatch of ``indices``, sorted once while it is among the latest."""
        kept = self._kept.setdefault(indices.numel(), deque(maxlen=PLANS_KEPT))
        found = next((each for each in kept if torch.equal(each.indices, indices)), None)
        if found is None:
            found = Dispatch.of(indices, experts)
            kept.append(found)
        return found

    @contextlib.contextmanager
    def capture(self) -> Iterator[dict[nn.Module, list[ExpertsInput]]]:
        """Take down what experts are given instead of running them."""
        self.captured = {}
        try:
            yield self.captured
        finally:
            self.captured = None

    @contextlib.contextmanager
    def rest(self, experts: set[nn.Module]) -> Iterator[None]:
        """Let experts give back zeros: nobody looks at their outputs."""
        self.resting = experts
        try:
            yield
        finally:
            self.resting = set()


def captures(experts: nn.Module) -> bool:
    """Whether ``ExpertsRuns`` governs this experts module: experts with a forward of their own
    (Llama 4) keep it."""
    if not isinstance(experts, LinearExperts2D):
        return False
    kind = type(experts)
    own = kind.__mro__[: kind.__mro__.index(LinearExperts2D)]
    return not any("forward" in each.__dict__ for each in own)


@contextlib.contextmanager
def lean_experts(runs: ExpertsRuns | None = None) -> Iterator[ExpertsRuns]:
    """Let linearized experts run by sorted tokens; "calibrate all experts" still says which."""
    runs = runs or ExpertsRuns()

    def forward(
        self: Any, hidden: torch.Tensor, indices: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        if self in runs.resting:
            return torch.zeros_like(hidden)
        trial = runs.trial.get(self)
        if trial is not None and trial.down is not None:
            return run_grouped(self, hidden, indices, weights, trial.gate_up, trial.down)
        dispatch = runs.dispatch(indices, self.num_experts)
        if runs.captured is not None:
            runs.captured.setdefault(self, []).append(ExpertsInput(hidden, dispatch))
            return torch.zeros_like(hidden)
        every_token = context.get_calibrate_all_experts_flag()
        stacked = None if trial is None else trial.gate_up
        return run_experts(self, hidden, weights, dispatch, every_token, stacked)

    with patch_attr(LinearExperts2D, "forward", forward):
        yield runs


@contextlib.contextmanager
def natural_routing() -> Iterator[None]:
    """Turn "calibrate all experts" off: outputs are those of the model's own routing either way,
    up to the rounding of a product of another height."""
    with patch_attr(context, "_CALIBRATE_ALL_EXPERTS", False):
        yield


@contextlib.contextmanager
def every_expert() -> Iterator[None]:
    """Turn "calibrate all experts" on, as stock does for the whole calibration."""
    with patch_attr(context, "_CALIBRATE_ALL_EXPERTS", True):
        yield


def run_experts(
    experts: Any,
    hidden: torch.Tensor,
    weights: torch.Tensor,
    dispatch: Dispatch,
    every_token: bool,
    gate_up: torch.Tensor | None = None,
) -> torch.Tensor:
    """The experts' weighted sum for every token: ``hidden`` [tokens, hidden], ``weights``
    [tokens, top-k]. ``every_token`` runs each expert on all tokens and throws the rest away: the
    same sum up to the rounding of a product of another height. ``gate_up`` replaces the experts'
    own gate and up."""
    weight = weights.T.flatten()[dispatch.order, None]
    total = torch.zeros_like(hidden)
    for expert, member in enumerate(members_of(experts)):
        begin, end = dispatch.bounds[expert : expert + 2]
        if begin == end and not every_token:
            continue
        tokens = dispatch.tokens[begin:end]
        mine = hidden if every_token else hidden.index_select(0, tokens)
        stacked = None if gate_up is None else gate_up[expert]
        output = _run_expert(member, mine, stacked)
        if every_token:
            output = output.index_select(0, tokens)
        total.index_add_(0, tokens, (output * weight[begin:end]).to(total.dtype))
    return total


def run_grouped(
    experts: Any,
    hidden: torch.Tensor,
    indices: torch.Tensor,
    weights: torch.Tensor,
    gate_up: torch.Tensor,
    down: torch.Tensor,
) -> torch.Tensor:
    """``run_experts`` by grouped products over tokens sorted by expert, ``indices`` and
    ``weights`` [tokens, top-k]: no size is read back from the device, and the sum over a token's
    experts has a fixed order, so a run can be repeated bit for bit."""
    tokens, top_k = indices.shape
    chosen = indices.T.flatten()
    order = chosen.argsort(stable=True)
    counts = torch.zeros(len(gate_up), dtype=torch.int32, device=hidden.device)
    counts.index_add_(0, chosen, torch.ones_like(chosen, dtype=torch.int32))
    ends = counts.cumsum(0).to(torch.int32)
    mine = hidden.index_select(0, order % tokens)
    both = nn.functional.grouped_mm(mine, gate_up.transpose(1, 2), offs=ends)
    inner = experts[0]._apply_gate(both)
    output = nn.functional.grouped_mm(inner, down.transpose(1, 2), offs=ends)
    spread = torch.empty_like(output)
    spread[order] = output * weights.T.flatten()[order, None].to(output.dtype)
    return spread.view(top_k, tokens, -1).sum(dim=0)


def members_of(experts: Any) -> list[Any]:
    """The experts of an experts module, which iterates over its activation function too."""
    children = dict(experts.named_children())
    return [children[str(at)] for at in range(experts.num_experts)]


def is_plain(expert: nn.Module) -> bool:
    """Whether an expert runs llmcompressor's forward: down(gate · up)."""
    return type(expert).forward is ExpertMLPWithGate.forward


def down_input(expert: Any, tokens: torch.Tensor) -> torch.Tensor:
    """What the expert's down projection is given for ``tokens`` [tokens, hidden]."""
    if is_plain(expert):
        both = [_project(expert.gate_proj, tokens), _project(expert.up_proj, tokens)]
        inner: torch.Tensor = expert._apply_gate(torch.cat(both, dim=-1))
        return inner
    seen: list[torch.Tensor] = []
    hook = expert.down_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        expert(tokens)
    finally:
        hook.remove()
    return seen[0]


def _run_expert(
    expert: Any, tokens: torch.Tensor, gate_up: torch.Tensor | None = None
) -> torch.Tensor:
    """``ExpertMLPWithGate.forward``, with the projections called plainly where that is the same;
    experts of another kind run their own forward."""
    if gate_up is not None:
        inner = expert._apply_gate(nn.functional.linear(tokens, gate_up))
        return _project(expert.down_proj, inner)
    if not is_plain(expert):
        output: torch.Tensor = expert(tokens)
        return output
    return _project(expert.down_proj, down_input(expert, tokens))


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

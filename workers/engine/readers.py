"""Which modules read the output of which norm, found by running a few tokens.

AWQ divides a norm's output channels by a scale and multiplies the columns of every weight that
reads it. Missing one reader changes the model: leaving the router out moved 15 to 35 % of tokens
to other experts on toy models. So the readers are not taken from a list of names: four tokens are
run through the model, and every module whose input shares its storage with a norm's output is a
reader of that norm. The experts' own work is skipped while probing, so the probe costs little and
also runs on the meta device.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from workers.engine.architecture import MoeLayer
from workers.engine.forward import hidden_states

PROBE_TOKENS = 4


@dataclass
class Readers:
    """For each norm, in the order they ran: the weights (two dimensions) that read its output,
    the experts modules that do, and any other module with parameters of its own that does."""

    linears: dict[str, list[str]] = field(default_factory=dict)
    experts: dict[str, list[str]] = field(default_factory=dict)
    unknown: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class _Probe:
    """Storages of norm outputs seen so far. The outputs are kept alive, or their storage could
    be given to another tensor."""

    experts: frozenset[str]
    readers: Readers
    norm_of_storage: dict[int, str] = field(default_factory=dict)
    kept: list[torch.Tensor] = field(default_factory=list)

    def note_output(self, name: str, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            self.kept.append(output)
            self.norm_of_storage[_storage(output)] = name

    def note_input(self, name: str, module: nn.Module, tensors: list[torch.Tensor]) -> None:
        channels = {
            self.norm_of_storage.get(_storage(tensor)): tensor.shape[-1] for tensor in tensors
        }
        for norm, size in channels.items():
            if norm is None:
                continue
            kind = self._kind(name, module, size)
            if kind is not None and name not in (known := kind.setdefault(norm, [])):
                known.append(name)

    def _kind(self, name: str, module: nn.Module, channels: int) -> dict[str, list[str]] | None:
        if name in self.experts:
            return self.readers.experts
        own = dict(module.named_parameters(recurse=False))
        if "weight" in own and own["weight"].ndim == 2:
            return self.readers.linears
        # What has no dimension of the input's size does not act on its channels: the attention
        # of gpt-oss has a sink a head.
        acts = any(channels in parameter.shape for parameter in own.values())
        return self.readers.unknown if acts else None


@torch.no_grad()
def norm_readers(model: PreTrainedModel, layers: Sequence[MoeLayer]) -> Readers:
    """The readers of every norm (a module whose only weight has one dimension).

    The model's hooks of other owners must be quiet; its weights are not changed.
    """
    experts = frozenset(layer.experts_name for layer in layers)
    probe = _Probe(experts=experts, readers=Readers())
    ids = torch.arange(PROBE_TOKENS)[None]
    with ExitStack() as stack:
        for name in experts:
            stack.enter_context(_without_work(model.get_submodule(name)))
        for name, module in model.named_modules():
            if name and not any(name.startswith(f"{prefix}.") for prefix in experts):
                _watch(stack, probe, name, module)
        _run(model, ids)
    return probe.readers


def _run(model: PreTrainedModel, ids: torch.Tensor) -> None:
    """Run the decoder on ``ids`` [1, tokens]. On the meta device the mask is given: transformers
    would look into the positions to make one, and there is nothing to look into."""
    if model.device.type != "meta":
        hidden_states(model, ids, ids)
        return
    ids = ids.to("meta")
    tokens = ids.shape[1]
    mask = torch.zeros(1, 1, tokens, tokens, dtype=model.dtype, device="meta")
    model.base_model(input_ids=ids, position_ids=ids, attention_mask=mask, use_cache=False)


def _watch(stack: ExitStack, probe: _Probe, name: str, module: nn.Module) -> None:
    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensors = [v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)]
        probe.note_input(name, module, tensors)

    stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
    weight = module._parameters.get("weight")
    if weight is not None and weight.ndim == 1:
        after: Callable[..., None] = lambda _, __, output: probe.note_output(name, output)  # noqa: E731
        stack.callback(module.register_forward_hook(after).remove)


@contextmanager
def _without_work(experts: nn.Module) -> Iterator[None]:
    def forward(hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.zeros_like(hidden)

    own = experts.__dict__.get("forward")
    experts.forward = forward
    try:
        yield
    finally:
        del experts.forward
        if own is not None:
            experts.forward = own


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _random_copy(block: nn.Module, *members: nn.Module) -> tuple[nn.Module, ...]:
    """A copy of ``block`` on the CPU with random weights, and its copies of some members."""
    names = {module: name for name, module in block.named_modules()}
    twin = copy.deepcopy(block).to_empty(device="cpu").float()
    generator = torch.Generator().manual_seed(1)
    for parameter in twin.parameters():
        parameter.normal_(0, parameter.shape[-1] ** -0.5, generator=generator)
    return twin, *(twin.get_submodule(names[member]) for member in members)


@torch.no_grad()
def scales_through(block: nn.Module, up: nn.Module, down: nn.Module) -> bool:
    """Whether doubling the output of ``up`` doubles the input of ``down``, tried by running
    ``block`` on random tokens.

    True for gate · up products. False where up passes a non-linearity, is shifted or is clamped
    (gpt-oss), and then up must not be scaled. On the meta device a copy with random weights is
    run instead: the answer is one of the architecture.
    """
    if up.weight.is_meta:
        block, up, down = _random_copy(block, up, down)
    seen: list[torch.Tensor] = []
    factor = [1.0]
    up_hook = up.register_forward_hook(lambda _, __, output: output * factor[0])
    down_hook = down.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    weight = up.weight
    assert isinstance(weight, torch.Tensor)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(16, weight.shape[1], generator=generator).to(weight.device, weight.dtype)
    try:
        for size in (1.0, 1e3):
            for factor[0] in (1.0, 2.0):
                block(tokens * size)
    finally:
        up_hook.remove()
        down_hook.remove()
    pairs = zip(seen[::2], seen[1::2], strict=True)
    return all(torch.equal(doubled, 2 * plain) for plain, doubled in pairs)

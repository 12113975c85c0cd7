"""Which modules read the output of which norm, found by running a few tokens.

AWQ divides a norm's output channels by a scale and multiplies the columns of every weight that
reads it. Missing one reader changes the model: leaving the router out moved 15 to 35 % of tokens to
other experts on toy models. So the readers are not taken from a list of names: four tokens are run
through the model, and every module whose input shares its storage with a norm's output, or with a
copy of it (some routers read it cast to float32), is a reader of that norm. The experts' own work
is skipped while probing, so the probe costs little and also runs on the meta device.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from app.errors import ModelRefused
from workers.engine.models.architecture import MoeLayer
from workers.engine.passes.forward import hidden_states

PROBE_TOKENS = 4
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.clone.default)
OF_SHAPE = (torch.ops.aten.zeros_like, torch.ops.aten.empty_like, torch.ops.aten.new_zeros)

Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class Readers:
    """For each norm, in the order they ran: the weights (two dimensions) that read its output,
    the experts modules that do, and any other module with parameters of its own, or operation
    outside of one, that does. What each norm was called with, and the norms whose output is read
    reshaped (a norm of each head)."""

    linears: dict[str, list[str]] = field(default_factory=dict)
    experts: dict[str, list[str]] = field(default_factory=dict)
    unknown: dict[str, list[str]] = field(default_factory=dict)
    calls: dict[str, Call] = field(default_factory=dict)
    reshaped: set[str] = field(default_factory=set)


@dataclass
class _Probe:
    """Storages of norm outputs seen so far. The outputs are kept alive, or their storage could
    be given to another tensor."""

    experts: frozenset[str]
    readers: Readers
    norm_of_storage: dict[int, str] = field(default_factory=dict)
    kept: list[torch.Tensor] = field(default_factory=list)
    channels: dict[str, int] = field(default_factory=dict)
    inside: int = 0

    def note_output(self, name: str, output: Any) -> None:
        if isinstance(output, torch.Tensor):
            self.channels.setdefault(name, output.shape[-1])
            self.kept.append(output)
            self.norm_of_storage[_storage(output)] = name

    def note_copy(self, tensor: Any, copied: Any) -> None:
        norm = self.norm_of_storage.get(_storage(tensor))
        if norm is not None:
            self.note_output(norm, copied)

    def note_operation(self, operation: str, args: tuple[Any, ...]) -> None:
        for tensor in args:
            if isinstance(tensor, torch.Tensor):
                norm = self.norm_of_storage.get(_storage(tensor))
                if norm is not None:
                    self.readers.unknown.setdefault(norm, []).append(f"the operation {operation}")

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
                if size != self.channels[norm]:
                    self.readers.reshaped.add(norm)

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


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Shows a probe which tensors are copied or cast, and what else is done with them outside of
    the modules that hold a weight (MiniMax-Text-01 adds a norm's output to that of its layer)."""

    def __init__(self, probe: _Probe) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._probe = probe

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in COPIES:
            self._probe.note_copy(args[0], output)
        elif not (func.is_view or func.overloadpacket in OF_SHAPE or self._probe.inside):
            self._probe.note_operation(func.overloadpacket.__name__, args)
        return output


@torch.no_grad()
def norm_readers(model: PreTrainedModel, layers: Sequence[MoeLayer]) -> Readers:
    """The readers of every norm (a module whose only weight has one dimension).

    The model's hooks of other owners must be quiet; its weights are not changed. Raises
    ModelRefused when the decoder does not run: its ``config.json`` contradicts itself, or what it
    does depends on values (JetMoE), and on the meta device there are none.
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
        stack.enter_context(_Operations(probe))
        try:
            _run(model, ids)
        except Exception as error:  # the model's own code
            first_line = (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")
            raise ModelRefused(
                "What reads the norms of this model cannot be told, because its layers do not run "
                f"on its configuration alone ({first_line}): check its config.json, or quantize "
                "without AWQ."
            ) from error
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

    def enter(*_: Any) -> None:
        probe.inside += 1

    def leave(*_: Any) -> None:
        probe.inside -= 1

    stack.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)
    if name in probe.experts or "weight" in module._parameters:
        stack.callback(module.register_forward_pre_hook(enter).remove)
        stack.callback(module.register_forward_hook(leave).remove)
    weight = module._parameters.get("weight")
    if weight is not None and weight.ndim == 1:

        def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            probe.note_output(name, output)
            probe.readers.calls[name] = (args, kwargs)

        stack.callback(module.register_forward_hook(after, with_kwargs=True).remove)


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


def random_copy(block: nn.Module, *members: nn.Module) -> tuple[nn.Module, ...]:
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
        block, up, down = random_copy(block, up, down)
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

"""Where the experts of a model are, read from its module tree and never from a table of names.

Experts modules are those that follow transformers' experts protocol (or, after linearization,
llmcompressor's ``LinearExperts2D``). From each: its block (the parent), its decoder layer (the
nearest ancestor that is an element of a module list) and its router (the module of the block whose
two-dimensional weight is experts × hidden; the least deep one, because a shared expert's
projections have that shape where its width is the number of experts).
"""

from __future__ import annotations

from dataclasses import dataclass

from llmcompressor.modeling.moe.linearize import (
    get_linearized_moes,
    get_non_linearized_moes,
)
from torch import nn
from transformers import PreTrainedModel

from app.base_models.configuration import TOP_K, number
from app.errors import ModelRefused


@dataclass(frozen=True)
class MoeLayer:
    """One mixture of experts: ``index`` of its decoder layer and the names of its modules."""

    index: int
    layer_name: str
    block_name: str
    experts_name: str
    router_name: str
    experts: int
    top_k: int


def moe_layers(model: PreTrainedModel) -> list[MoeLayer]:
    """Every mixture of experts in the order of the decoder; empty for a dense model.

    Works before and after linearization. Raises ModelRefused for experts whose router cannot be
    told, and for layers that differ in their number: what is counted by expert has one size.
    """
    found = [*get_non_linearized_moes(model), *get_linearized_moes(model)]
    layers = [_moe_layer(model, name, module) for name, module in found]
    if len(sizes := sorted({layer.experts for layer in layers})) > 1:
        raise ModelRefused(
            f"The layers of the model have {sizes[0]} to {sizes[-1]} experts, and Calibrant counts "
            "tokens by expert where all have as many: it cannot work on this model."
        )
    return sorted(layers, key=lambda layer: layer.index)


def linear_names(model: nn.Module) -> list[str]:
    """Every Linear module, in the model's order."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


def layer_index(module_name: str) -> int | None:
    """The decoder layer a module belongs to: the first number in its name (3 for
    ``model.layers.3.mlp.experts.7.up_proj``), None outside the decoder."""
    return next((int(part) for part in module_name.split(".") if part.isdigit()), None)


def layer_name_of(module_name: str) -> str | None:
    """The name of a module's decoder layer: everything up to the first number."""
    parts = module_name.split(".")
    at = next((at for at, part in enumerate(parts) if part.isdigit()), None)
    return None if at is None else ".".join(parts[: at + 1])


def _moe_layer(model: PreTrainedModel, experts_name: str, module: nn.Module) -> MoeLayer:
    index, layer_name = layer_index(experts_name), layer_name_of(experts_name)
    if index is None or layer_name is None:
        raise ModelRefused(f"The experts {experts_name} are not inside a decoder layer.")
    block_name = experts_name.rpartition(".")[0]
    block = model.get_submodule(block_name)
    experts = int(module.num_experts)  # type: ignore[arg-type]
    hidden = int(model.config.get_text_config().hidden_size)
    router_name = _router_name(block, block_name, experts_name, (experts, hidden))
    return MoeLayer(
        index=index,
        layer_name=layer_name,
        block_name=block_name,
        experts_name=experts_name,
        router_name=router_name,
        experts=experts,
        top_k=_top_k(model, block_name, router_name),
    )


def _router_name(
    block: nn.Module, block_name: str, experts_name: str, shape: tuple[int, int]
) -> str:
    candidates = [
        f"{block_name}.{name}"
        for name, module in block.named_modules()
        if name
        and not f"{block_name}.{name}.".startswith(f"{experts_name}.")
        and tuple(getattr(getattr(module, "weight", None), "shape", ())) == shape
    ]
    least = min((name.count(".") for name in candidates), default=0)
    candidates = [name for name in candidates if name.count(".") == least]
    if len(candidates) != 1:
        raise ModelRefused(
            f"{block_name} should have one router (a weight of {shape[0]} experts × {shape[1]}), "
            f"and {len(candidates)} modules look like one"
            + (f": {', '.join(candidates)}." if candidates else ".")
        )
    return candidates[0]


def _top_k(model: PreTrainedModel, block_name: str, router_name: str) -> int:
    """What the router says, or what holds it up to its block, or the configuration."""
    at = router_name
    while at.startswith(block_name):
        value = getattr(model.get_submodule(at), "top_k", None)
        if isinstance(value, int) and value > 0:
            return value
        at = at.rpartition(".")[0]
    config = model.config.get_text_config()
    usual = getattr(config, "num_experts_per_tok", None)
    found = usual or number(config.to_dict(), TOP_K)
    if not found:
        raise ModelRefused("The model does not say how many experts a token is routed to (top-k).")
    return found

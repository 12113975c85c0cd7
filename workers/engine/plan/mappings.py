"""What AWQ smooths, read from the module tree layer by layer.

A mapping divides the output channels of its smooth layer by a scale and multiplies the columns of
its balance layers by it. Three kinds are made, each only where a balance layer is quantized:

- norm → every reader of the norm. With experts the router comes first, because AWQ takes the
  activation statistics of a mapping from its first balance layer and the router sees every token;
  then every expert's gate and up, then whatever else reads the norm (shared experts, their gate).
- up → down of each expert and MLP, where down's input is proportional to up's output.
- v → o of attention, where their shapes agree (no grouped queries) and nothing acts on v between.

One regular expression over all layers would break on models whose first layers are dense; reading
layer by layer does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from app.errors import RecipeRefused
from workers.engine.models.architecture import MoeLayer, layer_index, moe_layers
from workers.engine.plan.norms import norm_kind
from workers.engine.plan.readers import norm_readers, scales_through

ATTENTION_PARTS = ("q_", "k_", "v_", "o_")


@dataclass(frozen=True)
class TreeMapping:
    """One smoothing: names of the modules involved. ``parent`` is the smallest module that runs
    all balance layers; ``token_wise`` says that it treats every token by itself, ``offset`` that
    the smooth layer is a norm that adds one to its weight."""

    layer: int
    smooth: str
    balance: tuple[str, ...]
    parent: str
    token_wise: bool
    offset: bool = False


def tree_mappings(model: PreTrainedModel, quantized: frozenset[str]) -> list[TreeMapping]:
    """The mappings of a linearized model, layer by layer, norms before up → down.

    ``quantized`` are the names of the modules the recipe quantizes. Raises RecipeRefused when a
    norm that would be smoothed has a reader that cannot be compensated.
    """
    layers = moe_layers(model)
    found = [*_norm_mappings(model, layers, quantized), *_product_mappings(model, quantized)]
    return sorted(found, key=lambda mapping: mapping.layer)


def _norm_mappings(
    model: PreTrainedModel, layers: Sequence[MoeLayer], quantized: frozenset[str]
) -> Iterator[TreeMapping]:
    readers = norm_readers(model, layers)
    layer_of_experts = {layer.experts_name: layer for layer in layers}
    for norm in dict.fromkeys((*readers.experts, *readers.linears)):
        index = layer_index(norm)
        moe = [layer_of_experts[name] for name in readers.experts.get(norm, [])]
        linears = readers.linears.get(norm, [])
        balance = _balance_layers(model, linears, moe)
        if index is None or quantized.isdisjoint(balance) or norm in readers.reshaped:
            continue  # heads that share a norm's weight have no scales of their own
        if stranger := next((each for each in moe if each.router_name not in linears), None):
            raise RecipeRefused(
                f"The router {stranger.router_name} does not read the norm before its experts, so "
                "smoothing that norm cannot be compensated: quantize this model without AWQ."
            )
        if strangers := readers.unknown.get(norm):
            raise RecipeRefused(
                f"{norm} cannot be smoothed: {strangers[0]} reads it too and is not a weight that "
                "can be scaled. Leave the modules after this norm out of the recipe, or quantize "
                "without AWQ."
            )
        kind = norm_kind(model.get_submodule(norm), readers.calls[norm])
        if kind is None:
            raise RecipeRefused(
                f"{norm} cannot be smoothed: its output is in proportion neither to its weight nor "
                "to one more than it. Leave the modules after this norm out of the recipe, or "
                "quantize without AWQ."
            )
        parent = common_parent(balance)
        token_wise = _is_token_wise(model, parent, moe)
        yield TreeMapping(index, norm, balance, parent, token_wise, kind == "offset")


def _balance_layers(
    model: PreTrainedModel, linears: Sequence[str], moe: Sequence[MoeLayer]
) -> tuple[str, ...]:
    routers = [layer.router_name for layer in moe]
    experts = [
        f"{layer.experts_name}.{expert}.{projection}"
        for layer in moe
        for expert in range(layer.experts)
        for projection in ("up_proj", "gate_proj")  # the order of the module tree, and of stock
        if hasattr(model.get_submodule(f"{layer.experts_name}.{expert}"), projection)
    ]
    return (*routers, *experts, *(name for name in linears if name not in routers))


def _is_token_wise(model: PreTrainedModel, parent: str, moe: Sequence[MoeLayer]) -> bool:
    if any(layer.block_name == parent for layer in moe):
        return True
    module = model.get_submodule(parent)
    return hasattr(module, "up_proj") and hasattr(module, "down_proj")


def _product_mappings(model: PreTrainedModel, quantized: frozenset[str]) -> Iterator[TreeMapping]:
    proportional: dict[object, bool] = {}
    for name, module in model.named_modules():
        for first, last in (("up_proj", "down_proj"), ("v_proj", "o_proj")):
            smooth, balance = f"{name}.{first}", f"{name}.{last}"
            index = layer_index(name)
            if index is None or balance not in quantized:
                continue
            if not _linears_agree(module, first, last):
                continue
            # Blocks of one class, place and shape answer alike: one of them is tried.
            place = re.sub(r"\d+", "N", name)
            kind = (type(module), place, first, getattr(module, first).weight.shape)
            if kind not in proportional:
                proportional[kind] = _is_proportional(module, first, last)
            if proportional[kind]:
                yield TreeMapping(index, smooth, (balance,), balance, token_wise=True)


def _linears_agree(module: nn.Module, first: str, last: str) -> bool:
    head, tail = getattr(module, first, None), getattr(module, last, None)
    if not isinstance(head, nn.Linear) or not isinstance(tail, nn.Linear):
        return False
    return head.out_features == tail.in_features


def _is_proportional(module: nn.Module, first: str, last: str) -> bool:
    if first == "v_proj":
        parts = {name.partition(".")[0] for name, _ in module.named_parameters()}
        clipped = getattr(getattr(module, "config", None), "clip_qkv", None)
        return all(part.startswith(ATTENTION_PARTS) for part in parts) and not (
            hasattr(module, "v_norm") or clipped
        )
    return scales_through(module, getattr(module, first), getattr(module, last))


def common_parent(names: Sequence[str]) -> str:
    """The name of the smallest module that holds all named modules; a single one holds itself."""
    if len(names) == 1:
        return names[0]
    parts = [name.split(".") for name in names]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared)

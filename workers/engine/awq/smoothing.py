"""Scales found by AWQ, applied to the weights of a mapping."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.utils import align_modules, update_offload_parameter
from llmcompressor.modifiers.transform.awq.mappings import ResolvedMapping
from torch import nn

from workers.engine.plan.mappings import TreeMapping


def resolved(model: nn.Module, mapping: TreeMapping) -> ResolvedMapping:
    """A mapping of the tree as llmcompressor's modifier holds it."""
    return ResolvedMapping(
        mapping.smooth,
        model.get_submodule(mapping.smooth),
        [model.get_submodule(name) for name in mapping.balance],
        balance_names=list(mapping.balance),
        parent=model.get_submodule(mapping.parent),
        parent_name=mapping.parent,
    )


@torch.no_grad()
def apply_scales(mapping: ResolvedMapping, scales: torch.Tensor) -> None:
    """Multiply the balance layers' columns by ``scales`` [in] and divide the smooth layer's
    output by them, with the operations of ``AWQModifier._apply_smoothing``, so that scales
    applied once more to the same weights give the same bits."""
    for layer in mapping.balance_layers:
        weight = weight_of(layer)
        spread = scales.to(weight.device).view(1, -1)
        update_offload_parameter(layer, "weight", weight * spread)
    smooth = mapping.smooth_layer
    weight = weight_of(smooth)
    scales = scales.to(weight.device)
    if weight.ndim == 1:
        weight = weight.div_(scales)
    else:
        weight[-len(scales) :].div_(scales.view(-1, 1))
    update_offload_parameter(smooth, "weight", weight)
    bias = getattr(smooth, "bias", None)
    if isinstance(bias, torch.Tensor):
        update_offload_parameter(smooth, "bias", bias.data.div_(scales))


def weight_of(module: nn.Module) -> torch.Tensor:
    """A module's weight, without its history."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight.data


def args_of(module: nn.Module) -> QuantizationArgs:
    """How a module's weight is quantized."""
    scheme: Any = module.quantization_scheme
    args: QuantizationArgs = scheme.weights
    return args


def is_quantized(module: nn.Module) -> bool:
    """Whether the recipe quantizes the module's weight."""
    scheme = getattr(module, "quantization_scheme", None)
    return scheme is not None and scheme.weights is not None


class ScaleLog:
    """The scales applied to a model by smoothing, so that they can be applied again."""

    def __init__(self, mappings: Iterable[TreeMapping]) -> None:
        self._mappings = {mapping.smooth: mapping for mapping in mappings}
        self._applied: dict[str, torch.Tensor] = {}

    def note(self, smooth: str, scales: torch.Tensor) -> None:
        """Take down the scales [in] of one mapping, by its smooth layer."""
        self._applied[smooth] = scales.detach().cpu()

    def take(self) -> dict[str, torch.Tensor]:
        """The scales noted since the last call, in their order."""
        applied, self._applied = self._applied, {}
        return applied

    def apply_again(self, model: nn.Module, scales: dict[str, torch.Tensor]) -> None:
        """Apply scales that an earlier run found, to the weights it found them for."""
        for smooth, values in scales.items():
            mapping = resolved(model, self._mappings[smooth])
            with align_modules([mapping.smooth_layer, *mapping.balance_layers]):
                apply_scales(mapping, values)

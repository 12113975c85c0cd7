"""The quantize step: a recipe run over a model by llmcompressor.

Smoothing (``TreeAWQModifier``), calibration (``QuantizationModifier``) and reporting
(``LayerReporter``) run together, layer by layer, in llmcompressor's sequential pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from app.errors import RecipeRefused
from app.jobs.spec import LayerReport, ModuleReport
from app.recipes.schema import Group, Recipe
from workers.engine.architecture import layer_index
from workers.engine.awq import TreeAWQModifier
from workers.engine.batches import PackedBatch, loader_of
from workers.engine.experts_forward import lean_experts
from workers.engine.layer_reports import LayerReporter
from workers.engine.library_output import hush
from workers.engine.mappings import TreeMapping, tree_mappings
from workers.engine.packing import PackedWeight
from workers.engine.targets import quantized_modules, scheme_of

hush()

from compressed_tensors.quantization import disable_quantization  # noqa: E402
from llmcompressor.entrypoints.oneshot import oneshot  # noqa: E402
from llmcompressor.modifiers.quantization import QuantizationModifier  # noqa: E402

Statistics = Literal["all", "routed"]


@dataclass(frozen=True)
class Plan:
    """What a recipe does to a model: the group of each quantized module, and the mappings."""

    recipe: Recipe
    modules: dict[str, Group]
    mappings: list[TreeMapping]


@dataclass(frozen=True)
class Quantized:
    """What the step leaves: packed weights by module name, the names of the modules whose
    weights smoothing changed, and the errors."""

    plan: Plan
    packed: dict[str, PackedWeight]
    smoothed: frozenset[str]
    layers: list[LayerReport]
    modules: list[ModuleReport]


def plan_of(model: PreTrainedModel, recipe: Recipe) -> Plan:
    """Resolve a recipe on a linearized model, before anything is changed.

    Raises RecipeRefused when the recipe does not fit: see ``targets`` and ``mappings``.
    """
    modules = quantized_modules(model, recipe)
    outside = next((name for name in modules if layer_index(name) is None), None)
    if outside is not None:
        raise RecipeRefused(
            f"{outside} is outside the decoder layers and cannot be quantized: add it to ignore."
        )
    return Plan(recipe, modules, tree_mappings(model, frozenset(modules)))


def quantize(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    plan: Plan,
    batches: Sequence[PackedBatch],
    dtypes: Mapping[str, torch.dtype],
    tell: Callable[[Any], None],
    statistics: Statistics = "all",
) -> Quantized:
    """Quantize a linearized model in place.

    ``dtypes`` gives the checkpoint's dtype of every quantized module's weight and of every
    smoothed tensor's module. ``statistics="all"`` lets every expert see every token, as stock
    llmcompressor does; ``"routed"`` only the tokens the router sends it. Afterwards the model's
    weights are those a reader of the checkpoint gets, and its forward is plain.
    """
    names = {model.get_submodule(name): name for name in plan.modules}
    layers = len({layer_index(name) for name in plan.modules})
    awq = TreeAWQModifier(
        tree=plan.mappings,
        tell=tell,
        n_grid=_stock_grid(plan.recipe),
        duo_scaling=plan.recipe.duo_scaling,
    )
    reporter = LayerReporter(names=names, dtypes=dtypes, layers=layers, tell=tell)
    modifiers = [awq, quantization_modifier(plan.recipe), reporter]
    with lean_experts():
        run_oneshot(model, tokenizer, modifiers, batches, all_experts=statistics == "all")
    smoothed = _names_of_smoothed(plan.mappings) - plan.modules.keys()
    settle(model, reporter.packed, smoothed, dtypes)
    return Quantized(
        plan, reporter.packed, smoothed, reporter.layer_reports, reporter.module_reports
    )


def quantization_modifier(recipe: Recipe) -> QuantizationModifier:
    """llmcompressor's modifier for the recipe's groups."""
    return QuantizationModifier(
        config_groups={group.name: scheme_of(group) for group in recipe.groups},
        ignore=[f"re:{pattern}" for pattern in recipe.ignore],
    )


def run_oneshot(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    modifiers: list[Any],
    batches: Sequence[PackedBatch],
    all_experts: bool,
) -> None:
    """Run modifiers over the batches in llmcompressor's sequential pipeline."""
    oneshot(
        model=model,
        processor=cast(Any, tokenizer),
        recipe=modifiers,
        dataset=loader_of(batches),
        pipeline="sequential",
        moe_calibrate_all_experts=all_experts,
    )


def _stock_grid(recipe: Recipe) -> int:
    """llmcompressor's ``n_grid`` for the recipe's number of ratios.

    It counts the unscaled point of duo scaling as one of them, and divides by the ratios left
    minus one, so a grid needs at least 3 points (2 without duo scaling).
    """
    return max(recipe.grid, 3 if recipe.duo_scaling else 2)


def _names_of_smoothed(mappings: Sequence[TreeMapping]) -> frozenset[str]:
    return frozenset(name for mapping in mappings for name in (mapping.smooth, *mapping.balance))


@torch.no_grad()
def settle(
    model: nn.Module,
    packed: Mapping[str, PackedWeight],
    smoothed: frozenset[str],
    dtypes: Mapping[str, torch.dtype],
) -> None:
    """Give every changed module the value that will be written, and a plain forward.

    Quantized weights become their dequantized values; smoothed ones are rounded to the
    checkpoint's dtype.
    """
    for name, weight in packed.items():
        module = model.get_submodule(name)
        module.weight.copy_(weight.dequantized())  # type: ignore[operator]
    for name in smoothed:
        for parameter in model.get_submodule(name).parameters(recurse=False):
            parameter.copy_(parameter.to(dtypes[name]))
    model.apply(disable_quantization)

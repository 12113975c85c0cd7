"""The quantize step: a recipe run over a model by llmcompressor.

Smoothing (``TreeAWQModifier``), calibration (``QuantizationModifier``) and reporting
(``LayerReporter``) run together, layer by layer, in a pipeline that can be resumed
(``workers.engine.pipeline``).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from compressed_tensors.quantization import (
    QuantizationScheme,
    disable_quantization,
)
from llmcompressor.entrypoints.oneshot import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from app.errors import RecipeRefused
from app.jobs.spec import LayerReport, ModuleReport
from app.recipes.narrowing import narrowed
from app.recipes.schema import Group, Recipe
from workers.engine.architecture import layer_index, moe_layers
from workers.engine.awq import TreeAWQModifier
from workers.engine.batches import PackedBatch, loader_of
from workers.engine.device import compute_device
from workers.engine.expert_statistics import TokenChoice
from workers.engine.experts_forward import ExpertsRuns, captures, every_expert, lean_experts
from workers.engine.fp8_blocks import FP8, Fp8Blocks, dequantize_blocks, quantize_blocks
from workers.engine.layer_reports import LayerReporter
from workers.engine.layer_store import LayerStore
from workers.engine.mappings import TreeMapping, tree_mappings
from workers.engine.packing import PackedWeight
from workers.engine.pipeline import Layerwise, layerwise
from workers.engine.reference import stock_modifier, stock_on_a_cpu
from workers.engine.smoothing import ScaleLog
from workers.engine.subgraphs import tracing_keeps_config
from workers.engine.targets import quantized_modules, scheme_of


@dataclass(frozen=True)
class Plan:
    """What a recipe does to a model: the group of each quantized module, and the mappings."""

    recipe: Recipe
    modules: dict[str, Group]
    mappings: list[TreeMapping]

    def scheme(self, module: str) -> QuantizationScheme:
        """How a quantized module's weight is quantized."""
        return scheme_of(self.modules[module])


@dataclass(frozen=True)
class Quantized:
    """What the step leaves: packed weights by module name, the names of the modules whose
    weights smoothing changed, those of them that stay in FP8 blocks with their new values, and
    the errors."""

    plan: Plan
    packed: Mapping[str, PackedWeight]
    smoothed: frozenset[str]
    fp8: dict[str, tuple[torch.Tensor, torch.Tensor]]
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
    routers = {layer.router_name for layer in moe_layers(model)}
    gate = next((name for name in modules if name in routers or _is_gate(model, name)), None)
    if gate is not None:
        raise RecipeRefused(
            f"{gate} decides where tokens go, and serving engines keep it as it is: add it to "
            "ignore."
        )
    mappings = tree_mappings(model, frozenset(modules)) if recipe.smooth else []
    return Plan(recipe, modules, mappings)


def _is_gate(model: nn.Module, name: str) -> bool:
    """Whether a Linear gives one number a token: the gate of a shared expert."""
    return bool(model.get_submodule(name).out_features == 1)


def quantize(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    plan: Plan,
    batches: Sequence[PackedBatch],
    dtypes: Mapping[str, torch.dtype],
    tell: Callable[[Any], None],
    store: LayerStore | None = None,
    finished: int = 0,
    blocks: Fp8Blocks | None = None,
    held_out: Sequence[PackedBatch] = (),
) -> Quantized:
    """Quantize a linearized model in place.

    ``dtypes`` gives the checkpoint's dtype of every quantized module's weight and of every
    smoothed tensor's module, ``blocks`` what float8 means there. ``store`` keeps each finished
    layer, and has ``finished`` of them already. The error of each layer's output is measured on the
    first of ``held_out`` too. Afterwards the model's weights are those a reader
    of the checkpoint gets, and its forward is plain.
    """
    store = store or LayerStore(None, plan.scheme)
    names = {model.get_submodule(name): name for name in plan.modules}
    reporter = LayerReporter(names=names, dtypes=dtypes)
    runs = ExpertsRuns()
    run = Layerwise(
        store=store,
        reporter=reporter,
        scales=ScaleLog(plan.mappings),
        runs=runs,
        tell=tell,
        every_token=carries_every_token(plan.recipe),
        layers=len({layer_index(name) for name in plan.modules}),
        finished=finished,
        held_out=held_out,
    )
    smoothing = smoothing_modifiers(plan, runs, run.note, run.scales)
    stock = plan.recipe.search == "stock"
    with contextlib.ExitStack() as stack:
        stack.enter_context(layerwise(run))
        stack.enter_context(stock_on_a_cpu() if stock else lean_experts(runs))
        if plan.recipe.statistics == "all" and (stock or _has_experts_of_its_own(model)):
            stack.enter_context(every_expert())
        modifiers = [*smoothing, quantization_modifier(model, plan), reporter]
        run_oneshot(model, tokenizer, modifiers, batches, pipeline="calibrant")
    smoothed = names_of_smoothed(plan) - plan.modules.keys()
    fp8 = settle(model, store.packed, smoothed, dtypes, blocks)
    return Quantized(plan, store.packed, smoothed, fp8, run.reports, run.modules)


def _has_experts_of_its_own(model: PreTrainedModel) -> bool:
    """Whether some experts keep a forward of their own, so that statistics of all tokens can only
    come from hooks while every expert is run, as stock does it."""
    experts = (model.get_submodule(layer.experts_name) for layer in moe_layers(model))
    return not all(captures(each) for each in experts)


def smoothing_modifiers(
    plan: Plan, runs: ExpertsRuns, tell: Callable[[Any], None], scales: ScaleLog
) -> list[Any]:
    """The modifier that smooths, as the recipe wants it: ours, stock or none."""
    recipe = plan.recipe
    if not plan.mappings:
        return []
    if recipe.search == "stock":
        return [
            stock_modifier(
                plan.mappings,
                grid_points(recipe),
                recipe.duo_scaling,
                tell,
                scales,
            )
        ]
    return [
        TreeAWQModifier(
            tree=plan.mappings,
            tell=tell,
            scales=scales,
            runs=runs,
            choice=TokenChoice(recipe.statistics, recipe.floor),
            fast=recipe.search == "fast",
            n_grid=grid_points(recipe),
            duo_scaling=recipe.duo_scaling,
        )
    ]


def carries_every_token(recipe: Recipe) -> bool:
    """Whether outputs are carried on with every expert run on every token. Stock does it with
    statistics of all tokens; the sums are the same but for the last bits, which is why only a
    search that promises stock's bits pays for it."""
    return recipe.statistics == "all" and recipe.search != "fast" and recipe.smooth


def quantization_modifier(model: nn.Module, plan: Plan) -> QuantizationModifier:
    """llmcompressor's modifier for the recipe's groups."""
    recipe = plan.recipe
    targets = narrowed(recipe, plan.modules, [name for name, _ in model.named_modules()])
    return QuantizationModifier(
        config_groups={
            group.name: scheme_of(group, [f"re:{pattern}" for pattern in targets[group.name]])
            for group in recipe.groups
        },
        ignore=[f"re:{pattern}" for pattern in recipe.ignore],
    )


def run_oneshot(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    modifiers: list[Any],
    batches: Sequence[PackedBatch],
    all_experts: bool = False,
    pipeline: str = "sequential",
) -> None:
    """Run modifiers over the batches in one of llmcompressor's pipelines."""
    with _config_of_what_is_in_memory(model), tracing_keeps_config():
        oneshot(
            model=model,
            processor=cast(Any, tokenizer),
            recipe=modifiers,
            dataset=loader_of(batches),
            pipeline=pipeline,
            moe_calibrate_all_experts=all_experts,
        )


@contextlib.contextmanager
def _config_of_what_is_in_memory(model: PreTrainedModel) -> Iterator[None]:
    """Let llmcompressor read the model's configuration as it is in memory: it looks at the source's
    on disk, and refuses one in FP8 blocks though its weights were dequantized on loading."""
    given = model.config.name_or_path
    with tempfile.TemporaryDirectory(prefix="calibrant-config-") as directory:
        model.config.save_pretrained(directory)
        model.config.name_or_path = directory
        try:
            yield
        finally:
            model.config.name_or_path = given


def grid_points(recipe: Recipe) -> int:
    """How many points a recipe's search tries, as llmcompressor's ``n_grid``; the fast search
    takes half of the ratios.

    llmcompressor counts the unscaled point of duo scaling as one of them, and divides by the
    ratios left minus one, so a grid needs at least 3 points (2 without duo scaling).
    """
    ratios = recipe.grid // 2 if recipe.search == "fast" else recipe.grid
    return max(ratios, 3 if recipe.duo_scaling else 2)


def names_of_smoothed(plan: Plan) -> frozenset[str]:
    """Every module whose weight smoothing may change."""
    return frozenset(
        name for mapping in plan.mappings for name in (mapping.smooth, *mapping.balance)
    )


@torch.no_grad()
def settle(
    model: nn.Module,
    packed: Mapping[str, PackedWeight],
    smoothed: frozenset[str],
    dtypes: Mapping[str, torch.dtype],
    blocks: Fp8Blocks | None = None,
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Give every changed module the value that will be written, and a plain forward.

    Quantized weights become their dequantized values; smoothed ones, and the biases beside
    quantized weights, are rounded to the checkpoint's dtype. Returns the float8 values and factors
    of smoothed weights that are stored in FP8 ``blocks``, by module.
    """
    fp8: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, weight in packed.items():
        module = model.get_submodule(name)
        module.weight.copy_(weight.dequantized(compute_device()))  # type: ignore[operator]
        if isinstance(module.bias, torch.Tensor):
            module.bias.copy_(module.bias.to(dtypes[name]))
    for name in smoothed:
        for parameter in model.get_submodule(name).parameters(recurse=False):
            if dtypes[name] == FP8 and parameter.ndim == 2:
                assert blocks is not None, "float8 weights come in blocks"
                fp8[name] = quantize_blocks(parameter, blocks)
                parameter.copy_(dequantize_blocks(*fp8[name], blocks))
            elif dtypes[name] != FP8:
                parameter.copy_(parameter.to(dtypes[name]))
    model.apply(disable_quantization)
    return fp8

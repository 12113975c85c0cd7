"""The quantize step: a recipe run over a model by llmcompressor.

Smoothing (``TreeAWQModifier``), calibration (``QuantizationModifier``) and reporting
(``LayerReporter``) run together, layer by layer, in a pipeline that can be resumed
(``workers.engine.quantization.pipeline``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from compressed_tensors.quantization import (
    disable_quantization,
)
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from app.jobs.spec import LayerReport, ModuleReport
from workers.engine.awq.experts_forward import ExpertsRuns, captures, every_expert, lean_experts
from workers.engine.awq.reference import stock_on_a_cpu
from workers.engine.awq.smoothing import ScaleLog
from workers.engine.device import compute_device
from workers.engine.formats.fp8_blocks import FP8, Fp8Blocks, dequantize_blocks, quantize_blocks
from workers.engine.formats.packing import PackedWeight
from workers.engine.models.architecture import layer_index, moe_layers
from workers.engine.plan.plan import Plan, carries_every_token, names_of_smoothed
from workers.engine.quantization.layer_reports import LayerReporter
from workers.engine.quantization.layer_store import LayerStore
from workers.engine.quantization.modifiers import (
    quantization_modifier,
    run_oneshot,
    smoothing_modifiers,
)
from workers.engine.quantization.offset_norms import plain_norms
from workers.engine.quantization.pipeline import Layerwise, layerwise
from workers.engine.rows.batches import PackedBatch


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
        stack.enter_context(plain_norms(model, (m.smooth for m in plan.mappings if m.offset)))
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

"""A recipe as llmcompressor's modifiers, and a run of them over a model."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from llmcompressor.core import reset_session
from llmcompressor.entrypoints.oneshot import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from app.recipes.narrowing import narrowed
from workers.engine.awq.expert_statistics import TokenChoice
from workers.engine.awq.experts_forward import ExpertsRuns
from workers.engine.awq.modifier import TreeAWQModifier
from workers.engine.awq.reference import stock_modifier
from workers.engine.awq.smoothing import ScaleLog
from workers.engine.passes.subgraphs import tracing_keeps_config, tracing_keeps_no_model
from workers.engine.plan.plan import Plan, grid_points
from workers.engine.plan.targets import scheme_of
from workers.engine.rows.batches import PackedBatch, loader_of


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
    """Run modifiers over the batches in one of llmcompressor's pipelines. Its session, which would
    hold the model for the process's life, is ended."""
    with _config_of_what_is_in_memory(model), tracing_keeps_config(), tracing_keeps_no_model():
        try:
            oneshot(
                model=model,
                processor=cast(Any, tokenizer),
                recipe=modifiers,
                dataset=loader_of(batches),
                pipeline=pipeline,
                moe_calibrate_all_experts=all_experts,
            )
        finally:
            reset_session()  # type: ignore[no-untyped-call]


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

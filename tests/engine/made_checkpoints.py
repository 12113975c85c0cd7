"""Tiny models quantized in memory, and what their checkpoints hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from app.recipes.schema import Group, Recipe
from tests.engine.tiny_models import rows_of, tiny_tokenizer
from workers.engine.formats.fp8_blocks import blocks_of
from workers.engine.models.loading import linearize, load_model, read_config
from workers.engine.plan.plan import plan_of
from workers.engine.quantization.quantize import Quantized, quantize
from workers.engine.quantizing import stored_dtypes
from workers.engine.rows.batches import PackedBatch, pack

BATCHES = pack(rows_of(30, 40, 20), 64)
IDS = torch.arange(40)[None] * 7 % 320


def quantized(
    directory: Path, recipe: Recipe, batches: Sequence[PackedBatch] = BATCHES
) -> tuple[PreTrainedModel, Quantized]:
    model = linearize(load_model(directory, torch.float32))
    plan = plan_of(model, recipe)
    dtypes = stored_dtypes(model, plan, directory)
    blocks = blocks_of(read_config(directory))
    tell: Callable[[Any], None] = lambda _: None  # noqa: E731
    return model, quantize(model, tiny_tokenizer(), plan, batches, dtypes, tell, blocks=blocks)


def recipe_for(target: str, symmetric: bool = True) -> Recipe:
    group = Group(name="g", targets=(target,), group_size=16, symmetric=symmetric)
    return Recipe(name="r", grid=3, groups=(group,))


def tensors_of(directory: Path) -> dict[str, torch.Tensor]:
    return {n: t for f in directory.glob("*.safetensors") for n, t in load_file(f).items()}

"""An exported recipe, run by stock llmcompressor as it is, gives our weights bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from compressed_tensors.offload import remove_dispatch
from llmcompressor.entrypoints.oneshot import oneshot
from transformers import PreTrainedModel

from app.recipes.llmcompressor import to_yaml
from app.recipes.schema import EXPERTS, LINEARS, Recipe, Statistics
from tests.engine.awq.test_modifier import (
    BATCHES,
    parameters_of,
    quantize_with_ours,
    recipe_for,
    stock_without_its_faults,
)
from tests.engine.tiny_models import tiny_tokenizer
from workers.engine.formats.packing import pack_weight
from workers.engine.plan.plan import plan_of
from workers.engine.rows.batches import loader_of

LinearModel = Callable[[str], PreTrainedModel]


@pytest.mark.parametrize(
    ("name", "target", "statistics"),
    [
        ("minimax_m2", EXPERTS, "all"),
        ("mixtral", EXPERTS, "routed"),
        ("qwen3_moe", LINEARS, "all"),  # its first layer is dense
        ("glm4_moe", EXPERTS, "all"),
        ("llama", LINEARS, "all"),
        ("mixtral", ".*", "all"),
    ],
)
def test_stock_runs_it(
    linear_model: LinearModel, tmp_path: Path, name: str, target: str, statistics: Statistics
) -> None:
    recipe = recipe_for(target).model_copy(update={"statistics": statistics})
    model = linear_model(name)
    plan = plan_of(model, recipe)
    file = tmp_path / "recipe.yaml"
    modules = [module for module, _ in model.named_modules()]
    text = to_yaml(recipe, plan.mappings, plan.modules, modules)
    file.write_text(text, encoding="utf-8")
    with stock_without_its_faults():
        oneshot(
            model=model,
            processor=tiny_tokenizer(),
            recipe=str(file),
            dataset=loader_of(BATCHES),
            pipeline="sequential",
            moe_calibrate_all_experts=statistics == "all",
        )
    remove_dispatch(model)
    for module_name in plan.modules:
        module = model.get_submodule(module_name)
        packed = pack_weight(module.weight, module.quantization_scheme, torch.float32)
        module.weight.data = packed.dequantized()
    stock = parameters_of(model)
    mine = linear_model(name)
    quantize_with_ours(mine, recipe)
    ours = parameters_of(mine)
    assert [n for n in ours if not torch.equal(stock[n], ours[n])] == []


def test_it_says_what_stock_has_not() -> None:
    recipe = Recipe.model_validate(
        {**recipe_for(EXPERTS).model_dump(), "statistics": "routed", "floor": 9, "search": "fast"}
    )
    text = to_yaml(recipe, [], {}, [])
    assert "moe_calibrate_all_experts=False" in text
    assert "topped up" in text
    assert "fast search" in text

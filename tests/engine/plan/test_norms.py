"""Norms that are read, or scaled, otherwise than most: what AWQ may do with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    DeepseekV32Config,
    Gemma4TextConfig,
    HunYuanMoEV1Config,
    MiniMaxConfig,
    NemotronConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3NextConfig,
)

from app.errors import RecipeRefused
from app.recipes.schema import ATTENTION, EXPERTS, LINEARS, Group, Recipe, Search
from tests.engine.made_checkpoints import BATCHES
from tests.engine.plan.test_mappings import mappings_of
from tests.engine.tiny_models import LEADING_DENSE, SHARED, WITHOUT_HEAD, tiny_model, tiny_tokenizer
from workers.engine.awq.parent_inputs import ParentInputs
from workers.engine.models.architecture import moe_layers
from workers.engine.models.loading import linearize
from workers.engine.plan.plan import plan_of
from workers.engine.quantization.quantize import Quantized, quantize

MIXTURE = {"intermediate_size": 32, "num_experts_per_tok": 2, "num_local_experts": 4}


def hunyuan(top_k: Any = 2) -> PreTrainedConfig:
    return HunYuanMoEV1Config(**SHARED, intermediate_size=32, num_experts=4, moe_topk=top_k)


def qwen3_next() -> PreTrainedConfig:
    return Qwen3NextConfig(
        **SHARED, intermediate_size=96, moe_intermediate_size=32, num_experts=4,
        num_experts_per_tok=2, shared_expert_intermediate_size=64,
        linear_key_head_dim=16, linear_value_head_dim=16, linear_num_key_heads=2,
        linear_num_value_heads=4, layer_types=["linear_attention", "full_attention"],
    )  # fmt: skip


def deepseek_v32() -> PreTrainedConfig:
    return DeepseekV32Config(
        **{**WITHOUT_HEAD, "num_key_value_heads": 4}, **LEADING_DENSE, n_group=1, topk_group=1,
        q_lora_rank=32, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=16,
        index_n_heads=4, index_head_dim=32, index_topk=64,
    )  # fmt: skip


def gemma4() -> PreTrainedConfig:
    return Gemma4TextConfig(
        **SHARED, global_head_dim=16, enable_moe_block=True, num_experts=4, top_k_experts=2,
        moe_intermediate_size=32, intermediate_size=96, hidden_size_per_layer_input=0,
        num_kv_shared_layers=0, layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip


def linear(config: PreTrainedConfig, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return linearize(tiny_model(config, dtype))


def test_a_router_that_reads_the_norm_cast_to_float32_is_a_reader() -> None:
    model = linear(hunyuan(), torch.bfloat16)
    for layer in moe_layers(model):
        router = model.get_submodule(layer.router_name)
        router.float()
    mappings = [each for each in mappings_of(model, EXPERTS) if "layernorm" in each.smooth]
    assert [each.balance[0] for each in mappings] == [
        f"model.layers.{layer}.mlp.gate.wg" for layer in (0, 1)
    ]


def test_a_norm_whose_output_is_added_to_its_layers_is_not_smoothed() -> None:
    model = linear(MiniMaxConfig(**SHARED, **MIXTURE))
    with pytest.raises(RecipeRefused, match="the operation mul reads it too"):
        mappings_of(model, EXPERTS)


def test_a_norm_that_adds_one_to_its_weight_is_not_smoothed() -> None:
    model = linear(NemotronConfig(**SHARED, intermediate_size=96))
    with pytest.raises(RecipeRefused, match="not in proportion to its weight"):
        mappings_of(model, LINEARS)


def test_a_norm_of_each_head_is_not_smoothed_and_what_llmcompressor_replaces_is() -> None:
    smoothed = {each.smooth for each in mappings_of(linear(qwen3_next()), LINEARS)}
    assert "model.layers.1.input_layernorm" in smoothed
    assert "model.layers.0.linear_attn.norm" not in smoothed


def test_a_router_beside_its_norm_matters_only_where_experts_are_quantized() -> None:
    model = linear(gemma4())
    assert [layer.top_k for layer in moe_layers(model)] == [2, 2]
    assert mappings_of(model, ATTENTION)
    with pytest.raises(RecipeRefused, match="does not read the norm before its experts"):
        mappings_of(model, EXPERTS)


def test_top_k_may_be_listed_by_layer() -> None:
    assert [layer.top_k for layer in moe_layers(linear(hunyuan([1, 2])))] == [1, 2]


def quantized(search: Search) -> Quantized:
    model = linear(deepseek_v32())
    group = Group(name="g", targets=(ATTENTION,), group_size=16)
    plan = plan_of(model, Recipe(name="r", grid=3, groups=(group,), search=search))
    parents = [each.parent for each in plan.mappings]
    assert parents.count("model.layers.0.self_attn") == 2
    dtypes = dict.fromkeys((name for name, _ in model.named_modules()), torch.float32)
    return quantize(model, tiny_tokenizer(), plan, BATCHES, dtypes, lambda _: None)


def test_a_parent_of_two_mappings_keeps_its_inputs_for_both() -> None:
    ours, stock = quantized("exact").packed, quantized("stock").packed
    assert {name: each.dequantized_sha256 for name, each in ours.items()} == {
        name: each.dequantized_sha256 for name, each in stock.items()
    }


def test_inputs_are_sampled_once_for_all_mappings_of_a_parent() -> None:
    inputs = ParentInputs(None, None)
    for batch in range(16):
        inputs.append({"hidden_states": torch.full((1, 8, 2), float(batch))})
    for _ in range(2):
        inputs.sample(4)
    assert [float(batch["hidden_states"][0, 0, 0]) for batch in inputs] == [0, 4, 8, 12]

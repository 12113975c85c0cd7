"""Norms that are read, or scaled, otherwise than most: what AWQ may do with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    DeepseekV32Config,
    Gemma4TextConfig,
    HunYuanMoEV1Config,
    MiniMaxConfig,
    MiniMaxM3VLTextConfig,
    NemotronConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3NextConfig,
)

from app.errors import ModelRefused, RecipeRefused
from app.recipes.schema import ATTENTION, EXPERTS, LINEARS, Group, Recipe, Search
from tests.engine.made_checkpoints import BATCHES
from tests.engine.plan.test_mappings import chosen_experts, mappings_of, smooth
from tests.engine.tiny_models import (
    LEADING_DENSE,
    SHARED,
    WITHOUT_HEAD,
    rows_of,
    tiny_model,
    tiny_tokenizer,
)
from workers.engine.awq.parent_inputs import ParentInputs
from workers.engine.models.architecture import moe_layers
from workers.engine.models.loading import linearize
from workers.engine.models.meta_model import meta_model
from workers.engine.passes.forward import hidden_states
from workers.engine.plan.plan import names_of_smoothed, plan_of, refuse_wrong_in_stock
from workers.engine.quantization.offset_norms import plain_norms
from workers.engine.quantization.quantize import Quantized, quantize
from workers.engine.rows.batches import pack

MIXTURE = {"intermediate_size": 32, "num_experts_per_tok": 2, "num_local_experts": 4}

Config = Callable[[], PreTrainedConfig]


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


def nemotron() -> PreTrainedConfig:
    return NemotronConfig(**SHARED, intermediate_size=96)


def minimax_m3() -> PreTrainedConfig:
    return MiniMaxM3VLTextConfig(**SHARED, **MIXTURE)


class Clamped(nn.LayerNorm):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden).clamp(-0.1, 0.1)


def test_a_norm_whose_output_does_not_follow_its_weight_is_not_smoothed() -> None:
    model = linear(qwen3_next())
    model.model.layers[1].post_attention_layernorm = Clamped(64)
    with pytest.raises(RecipeRefused, match="in proportion neither to its weight nor to one more"):
        mappings_of(model, EXPERTS)


@pytest.mark.parametrize("config", [nemotron, minimax_m3, qwen3_next])
def test_a_norm_that_adds_one_to_its_weight_is_smoothed_by_one_more(config: Config) -> None:
    model = linear(config())
    found = mappings_of(model, LINEARS)
    norms = [each for each in found if each.smooth.endswith("layernorm")]
    assert norms
    assert all(each.offset for each in norms)
    assert not any(each.offset for each in found if each not in norms)
    (batch,) = pack(rows_of(40), 64)
    with torch.no_grad():
        before = hidden_states(model, batch.input_ids, batch.position_ids)
    experts = chosen_experts(model)
    with plain_norms(model, (each.smooth for each in norms)):
        for seed, mapping in enumerate(found):
            smooth(model, mapping, seed)
    with torch.no_grad():
        after = hidden_states(model, batch.input_ids, batch.position_ids)
    torch.testing.assert_close(after, before, atol=2e-4, rtol=2e-4)
    for key, chosen in chosen_experts(model).items():
        assert torch.equal(chosen, experts[key]), "the top-k sets are 100 % unchanged"


def test_stock_is_not_given_a_norm_it_would_smooth_wrongly() -> None:
    recipe = Recipe(name="r", groups=(Group(name="g", targets=(LINEARS,), group_size=16),))
    known, unknown = linear(qwen3_next()), linear(nemotron())
    refuse_wrong_in_stock(known, plan_of(known, recipe))
    with pytest.raises(RecipeRefused, match="adds one to its weight, and llmcompressor"):
        refuse_wrong_in_stock(unknown, plan_of(unknown, recipe))


def test_norms_that_are_not_smoothed_keep_their_bits() -> None:
    model = linear(qwen3_next(), torch.bfloat16)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    group = Group(name="g", targets=(EXPERTS,), group_size=16)
    plan = plan_of(model, Recipe(name="r", grid=3, groups=(group,)))
    dtypes = dict.fromkeys((name for name, _ in model.named_modules()), torch.bfloat16)
    quantize(model, tiny_tokenizer(), plan, BATCHES, dtypes, lambda _: None)
    changed = {
        n.removesuffix(".weight")
        for n, v in model.state_dict().items()
        if n in before and not v.equal(before[n])
    }
    assert changed <= names_of_smoothed(plan) | plan.modules.keys()


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


def test_a_configuration_that_does_not_run_is_refused(tmp_path: Path) -> None:
    config = hunyuan()
    config.num_attention_heads, config.num_key_value_heads = 4, 3
    config.save_pretrained(tmp_path)
    with pytest.raises(ModelRefused, match="do not run on its configuration alone"):
        mappings_of(meta_model(tmp_path), EXPERTS)


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

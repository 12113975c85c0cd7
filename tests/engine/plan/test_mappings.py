"""AWQ's mappings: router first, every reader compensated, whatever the architecture."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from app.errors import RecipeRefused
from app.recipes.schema import ATTENTION, EXPERTS, LINEARS, Group, Recipe
from tests.engine.tiny_models import DENSE, FUSED, MOE, olmoe, rows_of, tiny_model
from workers.engine.models.architecture import moe_layers
from workers.engine.models.loading import linearize
from workers.engine.passes.forward import hidden_states
from workers.engine.passes.routing import routed_tokens
from workers.engine.plan import mappings as mappings_module
from workers.engine.plan.mappings import TreeMapping, common_parent, tree_mappings
from workers.engine.plan.readers import norm_readers, scales_through
from workers.engine.plan.targets import quantized_modules
from workers.engine.rows.batches import pack

SHARED_EXPERTS = ("shared_experts.gate_proj", "shared_experts.up_proj")
OTHER_READERS = {
    "qwen2_moe": ("shared_expert.gate_proj", "shared_expert.up_proj", "shared_expert_gate"),
    "glm4_moe": SHARED_EXPERTS,
    "deepseek_v3": SHARED_EXPERTS,
    "ernie4_5_moe": SHARED_EXPERTS,
}


def mappings_of(model: PreTrainedModel, *targets: str) -> list[TreeMapping]:
    recipe = Recipe(name="r", groups=(Group(name="all", targets=targets, group_size=16),))
    return tree_mappings(model, frozenset(quantized_modules(model, recipe)))


@torch.no_grad()
def smooth(model: PreTrainedModel, mapping: TreeMapping, seed: int) -> None:
    """Apply random scales of a mapping, as AWQ applies the ones it finds."""
    first = model.get_submodule(mapping.balance[0]).weight
    generator = torch.Generator().manual_seed(seed)
    scales = torch.rand(first.shape[1], generator=generator) * 1.5 + 0.25
    smoothed = model.get_submodule(mapping.smooth)
    smoothed.weight.div_(scales if smoothed.weight.ndim == 1 else scales[:, None])
    if getattr(smoothed, "bias", None) is not None:
        smoothed.bias.div_(scales)
    for name in mapping.balance:
        model.get_submodule(name).weight.mul_(scales)


def chosen_experts(model: PreTrainedModel) -> dict[tuple[int, int], torch.Tensor]:
    """The top-k set of every token in every layer, on a few rows."""
    seen: dict[tuple[int, int], torch.Tensor] = {}
    layers = moe_layers(model)
    for at, batch in enumerate(pack(rows_of(40, 50, 60, 30), 64)):
        with (
            routed_tokens(
                model, layers, lambda p, i, _, at=at: seen.update({(at, p): i.sort(-1).values})
            ),
            torch.no_grad(),
        ):
            hidden_states(model, batch.input_ids, batch.position_ids)
    return seen


@pytest.mark.parametrize("name", MOE)
def test_the_router_is_first_and_every_reader_is_balanced(name: str) -> None:
    model = linearize(tiny_model(MOE[name]()))
    found = mappings_of(model, EXPERTS)
    for layer in moe_layers(model):
        norm = f"{layer.layer_name}.post_attention_layernorm"
        (mapping,) = (each for each in found if each.smooth == norm)
        experts = {
            f"{layer.experts_name}.{expert}.{projection}"
            for expert in range(layer.experts)
            for projection in ("gate_proj", "up_proj")
        }
        assert mapping.balance[0] == layer.router_name
        assert experts <= set(mapping.balance)
        others = set(mapping.balance) - experts - {layer.router_name}
        assert others == {f"{layer.block_name}.{reader}" for reader in OTHER_READERS.get(name, ())}
        assert (mapping.parent, mapping.token_wise) == (layer.block_name, True)


@pytest.mark.parametrize("name", MOE)
def test_every_expert_has_its_up_to_down(name: str) -> None:
    model = linearize(tiny_model(MOE[name]()))
    found = {each.smooth: each for each in mappings_of(model, EXPERTS)}
    for layer in moe_layers(model):
        for expert in range(layer.experts):
            mapping = found[f"{layer.experts_name}.{expert}.up_proj"]
            assert mapping.balance == (f"{layer.experts_name}.{expert}.down_proj",)
            assert mapping.parent == mapping.balance[0]


@pytest.mark.parametrize(
    ("name", "target"),
    [
        *((name, EXPERTS) for name in (*MOE, *FUSED)),
        *((name, LINEARS) for name in (*MOE, *FUSED, *DENSE)),
    ],
)
def test_smoothing_changes_no_output_and_no_expert(name: str, target: str) -> None:
    model = linearize(tiny_model({**MOE, **FUSED, **DENSE}[name]()))
    found = mappings_of(model, target)
    (batch,) = pack(rows_of(40), 64)
    with torch.no_grad():
        before = hidden_states(model, batch.input_ids, batch.position_ids)
    experts = chosen_experts(model)
    for seed, mapping in enumerate(found):
        smooth(model, mapping, seed)
    with torch.no_grad():
        after = hidden_states(model, batch.input_ids, batch.position_ids)
    torch.testing.assert_close(after, before, atol=2e-4, rtol=2e-4)
    for key, chosen in chosen_experts(model).items():
        assert torch.equal(chosen, experts[key]), "the top-k sets are 100 % unchanged"


def test_leaving_the_router_out_does_change_experts() -> None:
    model = linearize(tiny_model(MOE["minimax_m2"]()))
    before = chosen_experts(model)
    for mapping in mappings_of(model, EXPERTS):
        if mapping.smooth.endswith("layernorm"):
            without = TreeMapping(0, mapping.smooth, mapping.balance[1:], mapping.parent, True)
            smooth(model, without, seed=0)
    after = chosen_experts(model)
    assert any(not torch.equal(after[key], before[key]) for key in before)


def test_a_leading_dense_layer_has_mappings_of_its_own() -> None:
    model = linearize(tiny_model(MOE["qwen3_moe"]()))
    found = mappings_of(model, LINEARS)
    by_norm = {each.smooth: each for each in found if each.smooth.endswith("layernorm")}
    dense = by_norm["model.layers.0.post_attention_layernorm"]
    assert set(dense.balance) == {"model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"}
    assert by_norm["model.layers.1.post_attention_layernorm"].balance[0].endswith("mlp.gate")
    assert [each.layer for each in found] == sorted(each.layer for each in found)


def test_attention_is_smoothed_only_when_it_is_quantized() -> None:
    model = linearize(tiny_model(MOE["mixtral"]()))
    assert not any("self_attn" in each.parent for each in mappings_of(model, EXPERTS))
    attention = [each for each in mappings_of(model, ATTENTION) if "self_attn" in each.parent]
    first = next(each for each in attention if each.layer == 0)
    assert first.smooth == "model.layers.0.input_layernorm"
    assert [name.rpartition(".")[2] for name in first.balance] == ["q_proj", "k_proj", "v_proj"]
    assert not first.token_wise


@pytest.mark.parametrize(("name", "agree"), [("llama", True), ("qwen3", False)])
def test_v_to_o_only_where_shapes_agree(name: str, agree: bool) -> None:
    found = mappings_of(tiny_model(DENSE[name]()), ATTENTION)
    assert any(each.smooth.endswith("v_proj") for each in found) == agree


def test_v_is_not_scaled_where_it_is_clipped() -> None:
    config = olmoe()
    config.num_key_value_heads = config.num_attention_heads
    for clip in (None, 0.5):
        config.clip_qkv = clip
        found = mappings_of(linearize(tiny_model(config)), ATTENTION)
        assert any(each.smooth.endswith("v_proj") for each in found) is (clip is None)


def test_a_reader_that_cannot_be_scaled_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = linearize(tiny_model(MOE["mixtral"]()))
    norm = "model.layers.0.post_attention_layernorm"

    def with_a_stranger(*args: object) -> object:
        readers = norm_readers(*args)  # type: ignore[arg-type]
        readers.unknown[norm] = ["model.layers.0.mlp.convolution"]
        return readers

    monkeypatch.setattr(mappings_module, "norm_readers", with_a_stranger)
    with pytest.raises(RecipeRefused, match="convolution reads it too"):
        mappings_of(model, EXPERTS)


class Gated(nn.Module):
    """An expert whose up-projection is used as ``combine`` says."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.gate_proj, self.up_proj = nn.Linear(8, 16), nn.Linear(8, 16)
        self.down_proj = nn.Linear(16, 8)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        gate, up = torch.sigmoid(self.gate_proj(tokens)), self.up_proj(tokens)
        inner = {
            "plain": up,
            "shifted": up + 1,
            "clamped": up.clamp(-7, 7),
            "relu²": up.relu() ** 2,
        }
        return self.down_proj(gate * inner[self.kind])


@pytest.mark.parametrize(
    ("kind", "proportional"),
    [("plain", True), ("shifted", False), ("clamped", False), ("relu²", False)],
)
@torch.no_grad()
def test_only_a_proportional_up_is_scaled(kind: str, proportional: bool) -> None:
    expert = Gated(kind)
    assert scales_through(expert, expert.up_proj, expert.down_proj) == proportional


def test_probing_leaves_the_model_as_it_was() -> None:
    model = linearize(tiny_model(MOE["minimax_m2"]()))
    (batch,) = pack(rows_of(20), 64)
    with torch.no_grad():
        before = hidden_states(model, batch.input_ids, batch.position_ids)
        mappings_of(model, LINEARS)
        after = hidden_states(model, batch.input_ids, batch.position_ids)
    assert torch.equal(before, after)
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_the_common_parent_is_the_smallest_that_holds_all() -> None:
    names = ("model.layers.0.mlp.gate", "model.layers.0.mlp.experts.0.up_proj")
    assert common_parent(names) == "model.layers.0.mlp"
    assert common_parent(names[:1]) == names[0]

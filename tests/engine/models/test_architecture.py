"""Experts, routers and top-k are found in the module tree of any architecture."""

from __future__ import annotations

import pytest

from app.errors import ModelRefused
from tests.engine.tiny_models import DENSE, FUSED, MOE, mixtral, qwen2_moe, tiny_model
from workers.engine.models.architecture import layer_index, layer_name_of, moe_layers
from workers.engine.models.loading import linearize

DENSE_FIRST = {"qwen3_moe", "glm4_moe", "deepseek_v3", "ernie4_5_moe"}
TOP_K = 2


@pytest.mark.parametrize("name", [*MOE, *FUSED])
@pytest.mark.parametrize("linear", [False, True])
def test_every_mixture_is_found_with_its_router(name: str, linear: bool) -> None:
    config = {**MOE, **FUSED}[name]()
    model = tiny_model(config)
    layers = moe_layers(linearize(model) if linear else model)
    assert [layer.index for layer in layers] == ([1] if name in DENSE_FIRST else [0, 1])
    for layer in layers:
        assert layer.top_k == TOP_K
        router = model.get_submodule(layer.router_name)
        assert router.weight.shape == (layer.experts, config.hidden_size)
        assert layer.layer_name == f"model.layers.{layer.index}"
        assert layer.experts_name == f"{layer.block_name}.experts"


def test_a_shared_expert_as_wide_as_there_are_experts_is_no_router() -> None:
    """Qwen3-Next has 512 experts and a shared one of 512 channels."""
    config = qwen2_moe()
    config.shared_expert_intermediate_size = config.num_experts
    layers = moe_layers(tiny_model(config))
    assert [layer.router_name for layer in layers] == [f"model.layers.{n}.mlp.gate" for n in (0, 1)]


def test_layers_of_different_numbers_of_experts_are_refused() -> None:
    """What is counted by expert would be counted at another expert."""
    few, many = (tiny_model(mixtral(num_local_experts=number)) for number in (4, 8))
    few.model.layers[1] = many.model.layers[1]
    with pytest.raises(ModelRefused, match="4 to 8 experts"):
        moe_layers(few)


@pytest.mark.parametrize("name", DENSE)
def test_a_dense_model_has_none(name: str) -> None:
    assert moe_layers(tiny_model(DENSE[name]())) == []


def test_names_tell_the_layer() -> None:
    assert layer_index("model.layers.3.mlp.experts.7.up_proj") == 3
    assert layer_name_of("model.layers.3.mlp.experts.7.up_proj") == "model.layers.3"
    assert layer_index("lm_head") is None

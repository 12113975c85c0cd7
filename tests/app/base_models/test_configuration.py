from __future__ import annotations

from typing import Any

import pytest

from app.base_models.configuration import TOP_K, moe_layers, number, router_kind, text_config

EXPERTS = {"num_experts": 8}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"first_k_dense_replace": 2}, [2, 3, 4, 5]),
        ({"mlp_only_layers": [0, 3]}, [1, 2, 4, 5]),
        ({"decoder_sparse_step": 2}, [1, 3, 5]),
        ({"decoder_sparse_step": 2, "mlp_only_layers": [3]}, [1, 5]),
        ({"interleave_moe_layer_step": 3}, [2, 5]),
        ({"moe_layers": [1, 4]}, [1, 4]),
        ({"moe_layer_freq": 2, "first_k_dense_replace": 1}, [2, 4]),
        ({"moe_layer_freq": [0, 1, 1, 0, 1, 0]}, [1, 2, 4]),
        ({"mlp_layer_types": ["dense", "sparse", "sparse", "dense", "sparse", "sparse"]},
         [1, 2, 4, 5]),
        ({"moe_layer_start_index": 1, "moe_layer_end_index": -1, "moe_layer_interval": 2},
         [1, 3, 5]),
        ({"moe_layer_start_index": 2, "moe_layer_end_index": 4}, [2, 3, 4]),
    ],
)  # fmt: skip
def test_layers_with_experts(config: dict[str, Any], expected: list[int]) -> None:
    assert moe_layers({**EXPERTS, **config}, 6) == expected


def test_a_dense_model_has_no_layers_with_experts_and_no_router() -> None:
    for config in ({}, {"num_experts": 0}, {"num_experts": None}):
        assert moe_layers(config, 6) is None
        assert router_kind(config, has_bias=False) is None


def test_the_router_is_named_by_configuration_or_model() -> None:
    assert router_kind(EXPERTS, has_bias=False) == "softmax"
    assert router_kind({**EXPERTS, "scoring_func": "sigmoid"}, has_bias=True) == "sigmoid with bias"
    assert router_kind({**EXPERTS, "model_type": "glm4_moe"}, has_bias=True) == "sigmoid with bias"
    for named in ("afmoe", "laguna", "hy_v3", "glm4v_moe_text", "minimax_m3_vl_text"):
        assert router_kind({**EXPERTS, "model_type": named}, has_bias=False) == "sigmoid"
    cohere = {**EXPERTS, "model_type": "cohere2_moe", "expert_selection_fn": "sigmoid"}
    assert router_kind(cohere, has_bias=False) == "sigmoid"


def test_a_model_that_sees_is_read_by_its_language_part() -> None:
    assert text_config({"text_config": {"num_experts": 8}, "num_experts": 1}) == EXPERTS
    assert text_config(EXPERTS) == EXPERTS


def test_a_number_may_be_listed_by_layer() -> None:
    """Hunyuan-A13B lists its top-k for every layer."""
    assert number({"moe_topk": [8, 8, 8]}, TOP_K) == 8
    assert number({"moe_topk": [8, 4]}, TOP_K) is None

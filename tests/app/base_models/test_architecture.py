from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.base_models.architecture import (
    ModelSummary,
    describe,
    linearized_name,
)
from app.errors import ModelRefused
from tests.app.base_models.checkpoints import (
    MINIMAX,
    minimax_shapes,
    write_model,
    write_safetensors,
)

DENSE = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 1}


def minimax(directory: Path) -> Path:
    return write_model(directory / "mini", MINIMAX, minimax_shapes())


def test_a_minimax_model(tmp_path: Path) -> None:
    summary = describe(minimax(tmp_path))
    assert (summary.name, summary.architecture) == ("mini", "MiniMaxM2ForCausalLM")
    assert (summary.layers, summary.moe_layers, summary.moe_layer_indices) == (2, 2, [0, 1])
    assert (summary.experts, summary.top_k, summary.router) == (4, 2, "sigmoid with bias")
    # embedding and head, norm, and per layer attention, router, bias and 4 experts of 3 matrices
    layer = 64 * 48 + 4 * 48 + 4 + 4 * 3 * 24 * 48
    assert summary.parameters == 2 * 100 * 48 + 48 + 2 * layer
    assert summary.dtypes == {"BF16": summary.parameters}
    assert summary.size_bytes == (tmp_path / "mini" / "model.safetensors").stat().st_size
    assert (summary.hidden, summary.moe_intermediate) == (48, 24)
    assert (summary.vocabulary, summary.max_positions) == (100, 256)
    assert not summary.fused_experts
    assert summary.quantization is None


def test_a_dense_model_has_no_experts_and_no_router(tmp_path: Path) -> None:
    shapes = {"model.layers.0.mlp.down_proj.weight": (8, 16)}
    summary = describe(write_model(tmp_path / "m", DENSE, shapes))
    assert (summary.moe_layers, summary.experts, summary.top_k) == (0, 0, 0)
    assert (summary.router, summary.moe_intermediate) == (None, None)
    assert summary.parameters == 128


def test_leading_dense_layers_and_prediction_layers_have_no_part(tmp_path: Path) -> None:
    config = {
        **DENSE,
        "model_type": "deepseek_v3",
        "num_hidden_layers": 3,
        "n_routed_experts": 2,
        "num_experts_per_tok": 1,
        "first_k_dense_replace": 1,
        "moe_intermediate_size": 8,
    }
    shapes = {
        f"model.layers.{layer}.mlp.experts.{expert}.up_proj.weight": (8, 16)
        for layer in (1, 2, 3)  # layer 3 predicts further tokens and is not run
        for expert in (0, 1)
    }
    summary = describe(write_model(tmp_path / "m", config, shapes))
    assert (summary.moe_layers, summary.moe_layer_indices) == (2, [1, 2])
    assert not [warning for warning in summary.warnings if "config.json" in warning]


def test_the_tensors_are_believed_where_the_configuration_disagrees(tmp_path: Path) -> None:
    config = {**MINIMAX, "num_local_experts": 8}
    summary = describe(write_model(tmp_path / "m", config, minimax_shapes()))
    assert summary.experts == 4
    assert "config.json names 8 experts, the weights have 4." in summary.warnings
    config = {**MINIMAX, "num_hidden_layers": 5}
    summary = describe(write_model(tmp_path / "m", config, minimax_shapes()))
    assert "config.json names 5 layers with experts, the weights have 2." in summary.warnings


@pytest.mark.parametrize(
    ("names", "shapes"),
    [
        (("experts.gate_up_proj", "experts.down_proj"), ((4, 32, 48), (4, 24, 32))),
        (("experts.gate_up_proj", "experts.down_proj"), ((4, 48, 32), (4, 32, 24))),
        (("input_linear.weight", "output_linear.weight"), ((4, 48, 32), (4, 32, 24))),
    ],
    ids=["gpt-oss", "transformers 5", "granite"],
)
def test_fused_experts_are_counted_and_known_by_their_later_names(
    tmp_path: Path, names: tuple[str, str], shapes: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    config = {**MINIMAX, "num_hidden_layers": 1, "hidden_size": 32}
    tensors = {
        f"model.layers.0.mlp.{name}": shape for name, shape in zip(names, shapes, strict=True)
    }
    summary = describe(write_model(tmp_path / "m", config, tensors))
    assert summary.fused_experts
    assert (summary.experts, summary.moe_layers) == (4, 1)
    assert summary.parameters == 4 * (48 * 32 + 24 * 32)
    assert summary.weight_shapes["model.layers.0.mlp.experts.3.up_proj"] == (24, 32)
    assert summary.weight_shapes["model.layers.0.mlp.experts.3.down_proj"] == (32, 24)


def test_the_parameters_of_packed_weights_are_those_packed_in_them(tmp_path: Path) -> None:
    config = {
        **DENSE,
        "quantization_config": {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"weights": {"num_bits": 4}}},
        },
    }
    directory = write_model(tmp_path / "m", config, {"model.norm.weight": (16,)})
    packed = {"model.layers.0.mlp.up_proj.weight_packed": (8, 2)}
    write_safetensors(directory / "packed.safetensors", packed, "I32")
    scales = {"model.layers.0.mlp.up_proj.weight_scale": (8, 1)}
    write_safetensors(directory / "scales.safetensors", scales)
    shape = {"model.layers.0.mlp.up_proj.weight_shape": (2,)}
    write_safetensors(directory / "shape.safetensors", shape, "I64")
    summary = describe(directory)
    assert summary.parameters == 8 * 16 + 16
    assert summary.quantization == "compressed-tensors"


def test_the_fingerprint_follows_configuration_and_shapes(tmp_path: Path) -> None:
    first = describe(minimax(tmp_path)).fingerprint
    assert describe(minimax(tmp_path)).fingerprint == first
    shapes = {**minimax_shapes(), "model.norm.weight": (47,)}
    assert describe(write_model(tmp_path / "mini", MINIMAX, shapes)).fingerprint != first
    config = {**MINIMAX, "rope_theta": 1}
    assert describe(write_model(tmp_path / "mini", config, minimax_shapes())).fingerprint != first


def test_a_tokenizer_and_a_template_are_missed_but_not_needed(tmp_path: Path) -> None:
    directory = minimax(tmp_path)
    summary = describe(directory)
    assert not summary.has_tokenizer
    assert not summary.has_chat_template
    assert len(summary.warnings) == 2
    (directory / "tokenizer.json").write_text("{}")
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": "x"}))
    summary = describe(directory)
    assert summary.has_tokenizer
    assert summary.has_chat_template
    assert summary.warnings == []


def test_the_document_is_read_back_without_the_shapes(tmp_path: Path) -> None:
    summary = describe(minimax(tmp_path))
    assert summary.weight_shapes
    document = json.loads(summary.model_dump_json())
    assert "weight_shapes" not in document
    assert {"architecture", "layers", "moe_layers", "experts", "top_k", "parameters", "router"} <= (
        document.keys()
    )
    assert ModelSummary.model_validate(document).weight_shapes == {}


@pytest.mark.parametrize(
    ("config", "sentence"),
    [(None, r"has no config\.json"), ("{", "is not JSON"), ("[]", "holds a JSON list")],
)
def test_a_directory_without_a_configuration_is_refused(
    tmp_path: Path, config: str | None, sentence: str
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(ModelRefused, match=sentence):
        describe(tmp_path)


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"There is no model directory .* `hf download"):
        describe(tmp_path / "none")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ModelRefused, match="There is no model directory"):
        describe(file)


def test_linearized_names() -> None:
    assert linearized_name("model.layers.0.block_sparse_moe.experts.7.w3") == (
        "model.layers.0.mlp.experts.7.up_proj"
    )
    assert linearized_name("model.layers.0.self_attn.q_proj") == "model.layers.0.self_attn.q_proj"


def test_the_demo_model() -> None:
    summary = describe(Path(__file__).parents[3] / "demo" / "model")
    assert (summary.layers, summary.moe_layers, summary.experts, summary.top_k) == (6, 6, 32, 4)
    assert summary.router == "sigmoid with bias"
    assert summary.warnings == []

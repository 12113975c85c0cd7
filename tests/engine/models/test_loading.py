"""What cannot be loaded is refused with the reason."""

from __future__ import annotations

import json
import re
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from llmcompressor.modeling.moe.linearize import get_non_linearized_moes
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from app.errors import ModelRefused
from tests.engine import tiny_models
from workers.engine.formats.fp8_blocks import Fp8Blocks
from workers.engine.formats.safetensors_files import INDEX, Shards
from workers.engine.models import loading
from workers.engine.models.loading import (
    limits_of,
    linearize,
    load_model,
    load_tokenizer,
    refuse_unusable_source,
)
from workers.engine.passes.forward import hidden_states
from workers.engine.run import load_for_computing


@pytest.fixture
def copy(source: Path, tmp_path: Path) -> Path:
    return shutil.copytree(source, tmp_path / "copy")


def test_the_dtype_is_the_checkpoints_unless_asked(source: Path) -> None:
    assert load_model(source).dtype == torch.bfloat16
    assert load_model(source, torch.float32).dtype == torch.float32
    assert limits_of(load_model(source)).vocabulary == 320


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    for function in (load_model, load_tokenizer, refuse_unusable_source):
        with pytest.raises(ModelRefused, match="no model directory"):
            function(tmp_path / "nothing")


def test_a_directory_without_config(copy: Path) -> None:
    (copy / "config.json").unlink()
    with pytest.raises(ModelRefused, match=r"no config\.json"):
        load_model(copy)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_broken_config(copy: Path, text: str) -> None:
    (copy / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelRefused, match="is not"):
        load_model(copy)


def test_an_architecture_nobody_knows(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    config["model_type"] = "unheard_of"
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelRefused, match="unheard_of"):
        load_model(copy)


def test_a_model_without_a_tokenizer(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    with pytest.raises(ModelRefused, match="has no tokenizer"):
        load_tokenizer(copy)


def test_pickled_weights_are_not_opened(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ModelRefused, match="pickle"):
        load_model(copy)
    (copy / "pytorch_model.bin").unlink()
    with pytest.raises(ModelRefused, match="has no weights"):
        load_model(copy)


def test_a_quantized_source(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": "fp8"}
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelRefused, match=r"quantized already \(fp8\)"):
        refuse_unusable_source(copy)


def test_what_a_compressed_source_is_is_explained(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    for key in ("quantization_config", "compression_config"):
        given = config | {key: {"quant_method": "compressed-tensors"}}
        (copy / "config.json").write_text(json.dumps(given), encoding="utf-8")
        with pytest.raises(ModelRefused, match="what such a job makes, and serves as it is"):
            refuse_unusable_source(copy)
    given = config | {"quantization_config": "int4"}
    (copy / "config.json").write_text(json.dumps(given), encoding="utf-8")
    with pytest.raises(ModelRefused, match=r"quantization_config in .* is not a JSON object"):
        refuse_unusable_source(copy)


def test_a_missing_shard_is_named(copy: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (copy / INDEX).write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(ModelRefused, match=r"names model-00001-of-00002\.safetensors"):
        Shards(copy)


def test_linearizing_needs_no_offload_wrappers(source: Path) -> None:
    model = linearize(load_model(source))
    assert isinstance(model.get_submodule("model.layers.0.mlp.experts.0.up_proj"), torch.nn.Linear)
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_an_index_of_another_revision_is_refused(copy: Path) -> None:
    names = list(Shards(copy).tensors)
    weight_map = dict.fromkeys([*names, "model.layers.9.extra.weight"], "model.safetensors")
    (copy / INDEX).write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    with pytest.raises(
        ModelRefused, match=r"^model\.layers\.9\.extra\.weight .* says that it is in"
    ):
        refuse_unusable_source(copy)


def test_a_tensor_the_index_does_not_name_is_refused(copy: Path) -> None:
    first, *others = Shards(copy).tensors
    weight_map = dict.fromkeys(others, "model.safetensors")
    (copy / INDEX).write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    with pytest.raises(ModelRefused, match=f"^{re.escape(first)} .* does not name it"):
        refuse_unusable_source(copy)


def test_a_tensor_in_two_files_is_refused(copy: Path) -> None:
    shutil.copyfile(copy / "model.safetensors", copy / "model-old.safetensors")
    with pytest.raises(ModelRefused, match="is in more than one file"):
        refuse_unusable_source(copy)


def test_a_file_that_ends_early_is_refused(copy: Path) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelRefused, match="ends before its tensor"):
        refuse_unusable_source(copy)
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(ModelRefused, match="cannot be read"):
        refuse_unusable_source(copy)


def test_a_file_that_goes_on_after_its_last_tensor_is_refused(copy: Path) -> None:
    with (copy / "model.safetensors").open("ab") as file:
        file.write(bytes(100))
    with pytest.raises(ModelRefused, match="100 bytes follow its last tensor"):
        refuse_unusable_source(copy)


@pytest.mark.parametrize(
    "header",
    ["[]", '{"a": 5}', '{"a": {}}', '{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}}'],
)
def test_a_header_of_something_else_is_refused(copy: Path, header: str) -> None:
    data = len(header).to_bytes(8, "little") + header.encode()
    (copy / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelRefused, match="its header is not one of safetensors"):
        refuse_unusable_source(copy)


def test_a_shape_that_does_not_fit_its_bytes_is_a_sentence(copy: Path) -> None:
    header = b'{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}'
    data = len(header).to_bytes(8, "little") + header + bytes(8)
    (copy / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelRefused, match="cannot be loaded"):
        load_model(copy)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "name",
    [
        "model.layers.1.self_attn.o_proj.weight",
        "model.layers.1.block_sparse_moe.experts.3.w2.weight",
        "model.layers.0.block_sparse_moe.e_score_correction_bias",
    ],
)
def test_a_weight_that_is_not_a_number_is_named(copy: Path, name: str, value: float) -> None:
    file = copy / "model.safetensors"
    tensors = load_file(file)
    tensors[name].view(-1)[3] = value
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelRefused, match=rf"^{re.escape(name)} of .* not finite"):
        load_for_computing(copy)


def test_factors_of_fp8_blocks_that_are_not_numbers_are_named(copy: Path) -> None:
    tiny_models.in_fp8_blocks(copy, Fp8Blocks(16, 32, dynamic_activations=True))
    tensors = load_file(copy / "model.safetensors")
    name = "model.layers.1.self_attn.o_proj.weight_scale_inv"
    tensors[name][0, 0] = float("nan")
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelRefused, match=rf"^{re.escape(name)} of .* not finite"):
        load_for_computing(copy)


@pytest.mark.parametrize("width", [34, 36])
def test_experts_of_any_width_run(tmp_path: Path, width: int) -> None:
    config = tiny_models.minimax_m2(intermediate_size=width)
    directory = tiny_models.save(tiny_models.tiny_model(config), tmp_path)
    model = load_model(directory)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        fused = hidden_states(model, ids, ids)
        torch.testing.assert_close(hidden_states(linearize(model), ids, ids), fused)


def test_experts_are_in_memory_twice_for_one_layer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_models.tiny_model(tiny_models.mixtral())
    fused = [weakref.ref(module) for _, module in get_non_linearized_moes(model)]
    alive: list[int] = []
    one = loading._linearize_one

    def watched(whole: PreTrainedModel, name: str) -> None:
        alive.append(sum(each() is not None for each in fused))
        one(whole, name)

    monkeypatch.setattr(loading, "_linearize_one", watched)
    linearize(model)
    assert alive == [2, 1]
    assert all(each() is None for each in fused)

"""Files that do not hold the model their configuration describes are refused before the work."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import KimiLinearConfig

from app.errors import ModelRefused
from app.recipes.schema import PRESETS
from tests.engine import tiny_models
from workers.engine.formats.fp8_blocks import Fp8Blocks
from workers.engine.models.completeness import refuse_incomplete
from workers.engine.models.meta_model import meta_model
from workers.engine.preflight.refusals import refuse_unfit
from workers.engine.preflight.report import preflight

EXPERT = "model.layers.1.block_sparse_moe.experts.3.w2.weight"
BLOCKS = Fp8Blocks(16, 32, dynamic_activations=True)
Tensors = dict[str, torch.Tensor]


def changed(source: Path, place: Path, change: Callable[[Tensors], object]) -> Path:
    directory = shutil.copytree(source, place)
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.fixture(scope="module")
def fp8_source(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = shutil.copytree(source, tmp_path_factory.mktemp("blocks") / "fp8")
    return tiny_models.in_fp8_blocks(copy, BLOCKS)


@pytest.mark.parametrize("name", [*tiny_models.MOE, *tiny_models.DENSE, *tiny_models.FUSED])
def test_every_architecture_is_whole_as_it_is_saved(
    saved: Callable[[str], Path], name: str
) -> None:
    directory = saved(name)
    refuse_incomplete(meta_model(directory), directory)


def test_a_weight_that_is_made_of_several_tensors_is_there(tmp_path: Path) -> None:
    """Kimi Linear's files have three convolutions where its model has one."""
    config = KimiLinearConfig(
        vocab_size=320, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=96, moe_intermediate_size=32, num_experts=4, num_experts_per_token=2,
        kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=16,
        linear_head_dim=16, linear_num_heads=2, pad_token_id=1, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    directory = tiny_models.save(tiny_models.tiny_model(config), tmp_path / "kimi-linear")
    assert "model.layers.0.self_attn.q_conv1d.weight" in load_file(directory / "model.safetensors")
    refuse_incomplete(meta_model(directory), directory)
    found = preflight(directory, PRESETS["experts-w4a16-g32"])
    assert (found.ok, found.errors) == (True, [])
    assert not [said for said in found.warnings if "not part of the model" in said]


def test_shared_embeddings_are_one_tensor(tmp_path: Path) -> None:
    config = tiny_models.mixtral(tie_word_embeddings=True)
    directory = tiny_models.save(tiny_models.tiny_model(config), tmp_path / "tied")
    assert "lm_head.weight" not in load_file(directory / "model.safetensors")
    refuse_incomplete(meta_model(directory), directory)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(EXPERT), f"has no tensor {EXPERT}: a file is missing"),
        (lambda t: t.pop("model.norm.weight"), "has no tensor model.norm.weight"),
        (lambda t: t.update({"lm_head.weight": torch.zeros(320, 8)}),
         "lm_head.weight of .* is 320 × 8, and its config.json describes 320 × 64"),
    ],
)  # fmt: skip
def test_what_is_missing_or_of_another_shape_is_named(
    source: Path, tmp_path: Path, change: Callable[[Tensors], object], said: str
) -> None:
    directory = changed(source, tmp_path / "changed", change)
    with pytest.raises(ModelRefused, match=said):
        refuse_unfit(directory, PRESETS["experts-w4a16-g32"])
    found = preflight(directory, PRESETS["experts-w4a16-g32"])
    assert not found.ok
    assert any(re.search(said, sentence) for sentence in found.errors)


def test_half_of_a_fused_layer_is_missed(saved: Callable[[str], Path], tmp_path: Path) -> None:
    down = "model.layers.1.mlp.experts.down_proj"
    directory = changed(saved("gpt_oss"), tmp_path / "half", lambda tensors: tensors.pop(down))
    with pytest.raises(ModelRefused, match=r"has no tensor model\.layers\.1\.mlp\.experts\.0"):
        refuse_unfit(directory, None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(f"{EXPERT}_scale_inv"), "weight_scale_inv of .* is missing"),
        (lambda t: t.update({f"{EXPERT}_scale_inv": torch.ones(1, 1)}),
         "is 1 × 1, and blocks of 16 × 32 of 64 × 32 want 4 × 1"),
    ],
)  # fmt: skip
def test_blocks_without_their_factors_are_named(
    fp8_source: Path, tmp_path: Path, change: Callable[[Tensors], object], said: str
) -> None:
    refuse_unfit(fp8_source, PRESETS["experts-w4a16-g32"])
    with pytest.raises(ModelRefused, match=said):
        refuse_unfit(changed(fp8_source, tmp_path / "changed", change), None)


def test_only_strangers_are_called_strangers(
    saved: Callable[[str], Path], fp8_source: Path, source: Path, tmp_path: Path
) -> None:
    def stranger(directory: Path) -> list[str]:
        found = preflight(directory, PRESETS["experts-w4a16-g32"])
        return [each for each in found.warnings if "not part of the model" in each]

    assert stranger(saved("gpt_oss")) == stranger(fp8_source) == []
    extra = {"model.layers.9.mtp.weight": torch.zeros(4, 4)}
    directory = changed(source, tmp_path / "more", lambda tensors: tensors.update(extra))
    assert "1 tensors" in stranger(directory)[0]

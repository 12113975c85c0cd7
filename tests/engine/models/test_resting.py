"""Weights that rest in a file are those that transformers loads into memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedConfig

from app.errors import DiskFull, ModelRefused
from tests.engine.conftest import DiskOf
from tests.engine.tiny_models import (
    DENSE,
    FUSED,
    MOE,
    glm4_moe,
    in_fp8_blocks,
    llama,
    minimax_m2,
    rows_of,
    save,
    tiny_model,
)
from workers.engine.formats.fp8_blocks import Fp8Blocks
from workers.engine.models.loading import linearize, load_model
from workers.engine.models.resting import load_resting, rests_on_disk
from workers.engine.passes.forward import last_hidden, layer_by_layer
from workers.engine.rows.batches import pack

BLOCKS = Fp8Blocks(16, 32, dynamic_activations=True)
EVERY = sorted(MOE | DENSE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", EVERY)
def test_weights_are_those_loaded_into_memory(
    name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    directory = save(tiny_model((MOE | DENSE)[name]()).to(torch.bfloat16), tmp_path / "model")
    here = linearize(load_model(directory, dtype))
    there = load_resting(directory, dtype, tmp_path / "scratch")
    assert rests_on_disk(there)
    assert not rests_on_disk(here)
    same_state(here, there)
    assert list((tmp_path / "scratch").iterdir()) == []


def same_state(here: torch.nn.Module, there: torch.nn.Module) -> None:
    mine, theirs = ({**m.state_dict(), **dict(m.named_buffers())} for m in (here, there))
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert value.dtype == theirs[name].dtype, name
        assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", [minimax_m2, glm4_moe])
def test_fp8_blocks_are_dequantized_alike(
    config: Callable[[], PreTrainedConfig], dtype: torch.dtype, tmp_path: Path
) -> None:
    model = tiny_model(config()).to(torch.bfloat16)
    directory = in_fp8_blocks(save(model, tmp_path / "model"), BLOCKS)
    same_state(linearize(load_model(directory, dtype)), load_resting(directory, dtype, tmp_path))


def test_a_tied_head_is_one_weight(tmp_path: Path) -> None:
    config = llama()
    config.tie_word_embeddings = True
    directory = save(tiny_model(config), tmp_path / "model")
    model = load_resting(directory, torch.float32, tmp_path)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    same_state(load_model(directory, torch.float32), model)


def test_a_pass_goes_layer_by_layer_to_the_same_states(tmp_path: Path) -> None:
    directory = save(tiny_model(minimax_m2()), tmp_path / "model")
    here = linearize(load_model(directory, torch.float32))
    there = load_resting(directory, torch.float32, tmp_path)
    batches = pack(rows_of(40, 30, 20), 50)
    order: list[int] = []
    for at, layer in enumerate(there.model.layers):
        layer.register_forward_pre_hook(lambda *_, at=at: order.append(at))
    found = list(last_hidden(there, batches))
    assert order == sorted(order)
    assert order.count(1) == len(batches)
    for mine, theirs in zip(layer_by_layer(here, batches), found, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("name", sorted(FUSED))
def test_experts_in_one_tensor_cannot_rest(name: str, tmp_path: Path) -> None:
    directory = save(tiny_model(FUSED[name]()), tmp_path / "model")
    with pytest.raises(ModelRefused, match="has no tensor of its own"):
        load_resting(directory, torch.float32, tmp_path)


def test_a_disk_without_room_is_told_before_anything_is_written(
    tmp_path: Path, disk_of: DiskOf
) -> None:
    directory = save(tiny_model(minimax_m2()), tmp_path / "model")
    with pytest.raises(DiskFull):
        load_resting(directory, torch.float32, disk_of("100k"))

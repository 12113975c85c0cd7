"""What the configuration says of modules that stay as they are beside packed ones of their kind."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.recipes.schema import EXPERTS
from tests.engine.made_checkpoints import quantized, recipe_for
from tests.engine.tiny_models import glm4_moe, in_fp8_blocks, minimax_m2, save, tiny_model
from workers.engine.checkpoints.export import export
from workers.engine.checkpoints.verification import verify
from workers.engine.formats.fp8_blocks import Fp8Blocks


def with_another_layer(directory: Path) -> Path:
    """A source with a layer more than its model has, as DeepSeek-V3 and GLM-4 publish the one that
    predicts further tokens."""
    file = directory / "model.safetensors"
    tensors = load_file(file)
    last = {n: t.clone() for n, t in tensors.items() if n.startswith("model.layers.1.")}
    tensors |= {n.replace("layers.1.", "layers.2."): t for n, t in last.items()}
    save_file(tensors, file, metadata={"format": "pt"})
    return directory


def engines_scheme(config: dict[str, Any], module: str) -> str | None:
    """The group vLLM and SGLang find for a module of the checkpoint: none where it is ignored,
    else that of the first target that matches."""
    if module in config["ignore"]:
        return None
    groups = config["config_groups"].items()
    return next((n for n, g in groups for t in g["targets"] if re.match(t[3:], module)), None)


@pytest.mark.parametrize("blocks", [None, Fp8Blocks(16, 32, dynamic_activations=True)])
def test_experts_of_a_layer_no_model_loads_stay_as_they_are(
    tmp_path: Path, blocks: Fp8Blocks | None
) -> None:
    directory = save(tiny_model(glm4_moe(), torch.bfloat16), tmp_path / "source")
    if blocks is not None:
        in_fp8_blocks(directory, blocks)
    with_another_layer(directory)
    model, done = quantized(directory, recipe_for(EXPERTS))
    checkpoint = export(model, done, directory, "s", tmp_path / "checkpoint").directory
    found = verify(checkpoint, directory)
    assert (found.ok, found.problems) == (True, [])
    config = json.loads((checkpoint / "config.json").read_text())["quantization_config"]
    expert = "model.layers.{}.mlp.experts.0.up_proj"
    assert engines_scheme(config, expert.format(1)) == "g"
    assert engines_scheme(config, expert.format(2)) == (None if blocks is None else "fp8_blocks")


def test_some_layers_alone_of_a_source_in_blocks(tmp_path: Path) -> None:
    directory = save(tiny_model(minimax_m2(), torch.bfloat16), tmp_path / "source")
    in_fp8_blocks(directory, Fp8Blocks(16, 32, dynamic_activations=True))
    model, done = quantized(directory, recipe_for(r".*\.layers\.1\.mlp\.experts\..*_proj$"))
    checkpoint = export(model, done, directory, "s", tmp_path / "checkpoint").directory
    found = verify(checkpoint, directory)
    assert (found.ok, found.problems) == (True, [])
    config = json.loads((checkpoint / "config.json").read_text())["quantization_config"]
    expert = "model.layers.{}.block_sparse_moe.experts.0.w1"
    schemes = [engines_scheme(config, expert.format(layer)) for layer in (0, 1)]
    assert schemes == ["fp8_blocks", "g"]

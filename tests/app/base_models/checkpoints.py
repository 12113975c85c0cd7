"""Model directories written by hand: a configuration, and safetensors of zeros."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BYTES = {"F32": 4, "BF16": 2, "I32": 4, "I64": 8, "F8_E4M3": 1}
Shapes = Mapping[str, tuple[int, ...]]


def write_safetensors(file: Path, shapes: Shapes, dtype: str = "BF16") -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        size = BYTES[dtype]
        for side in shape:
            size *= side
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    content = json.dumps(header).encode()
    file.write_bytes(len(content).to_bytes(8, "little") + content + bytes(offset))


def write_model(directory: Path, config: Mapping[str, Any], shapes: Shapes) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    write_safetensors(directory / "model.safetensors", shapes)
    return directory


MINIMAX = {
    "architectures": ["MiniMaxM2ForCausalLM"],
    "model_type": "minimax_m2",
    "num_hidden_layers": 2,
    "hidden_size": 48,
    "intermediate_size": 24,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "vocab_size": 100,
    "max_position_embeddings": 256,
    "scoring_func": "sigmoid",
}


def minimax_shapes(layers: int = 2, experts: int = 4) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (100, 48),
        "lm_head.weight": (100, 48),
        "model.norm.weight": (48,),
    }
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        block = f"{prefix}.block_sparse_moe"
        shapes[f"{prefix}.self_attn.q_proj.weight"] = (64, 48)
        shapes[f"{block}.gate.weight"] = (experts, 48)
        shapes[f"{block}.e_score_correction_bias"] = (experts,)
        for expert in range(experts):
            shapes[f"{block}.experts.{expert}.w1.weight"] = (24, 48)
            shapes[f"{block}.experts.{expert}.w2.weight"] = (48, 24)
            shapes[f"{block}.experts.{expert}.w3.weight"] = (24, 48)
    return shapes

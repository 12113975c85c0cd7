"""A model directory without an engine: tokenizer, template, configuration, weights of zeros."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from app.sources.starter_corpus import load_rows

LAYERS, EXPERTS, TOP_K, HIDDEN, INTERMEDIATE, VOCABULARY = 6, 32, 4, 128, 64, 1200
SPECIAL_TOKENS = ["<bos>", "<eos>", "<|system|>", "<|user|>", "<|assistant|>"]
TEMPLATE = """\
{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>
{{ message.content }}{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}
{% endfor %}"""


def write_model(directory: Path, experts: int = EXPERTS) -> Path:
    """A MiniMax-M2 in miniature: configuration, tokenizer and safetensors of zeros. With no
    experts a dense one."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["MiniMaxM2ForCausalLM" if experts else "LlamaForCausalLM"],
        "model_type": "minimax_m2" if experts else "llama",
        "num_hidden_layers": LAYERS,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
        "scoring_func": "sigmoid",
    }
    if experts:
        config |= {"num_local_experts": experts, "num_experts_per_tok": TOP_K}
    (directory / "config.json").write_text(json.dumps(config))
    _write_tokenizer(directory)
    _write_weights(directory / "model.safetensors", experts)
    return directory


def _write_tokenizer(directory: Path) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((row["text"] for row in load_rows()[::10]), trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"bos_token": "<bos>", "eos_token": "<eos>", "chat_template": TEMPLATE}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def _write_weights(file: Path, experts: int) -> None:
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        here = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"{here}.self_attn.{name}.weight"] = (HIDDEN, HIDDEN)
        if experts:
            shapes[f"{here}.block_sparse_moe.gate.weight"] = (experts, HIDDEN)
            shapes[f"{here}.block_sparse_moe.e_score_correction_bias"] = (experts,)
        for expert in range(experts):
            names = {"w1": (INTERMEDIATE, HIDDEN), "w2": (HIDDEN, INTERMEDIATE)}
            for name, shape in (names | {"w3": (INTERMEDIATE, HIDDEN)}).items():
                shapes[f"{here}.block_sparse_moe.experts.{expert}.{name}.weight"] = shape
    header, place = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(place))

"""The demo model's shape: MiniMax-M2 in miniature, about six million parameters."""

from __future__ import annotations

import torch
from transformers import MiniMaxM2Config, MiniMaxM2ForCausalLM, set_seed

VOCABULARY = 4096
MAX_TOKENS = 2048


def demo_config(pad: int, begin: int, end: int) -> MiniMaxM2Config:
    """MiniMax-M2 with 6 layers, hidden 128, 32 experts of 64, top-4; ids are of special tokens.

    As in the real model: sigmoid router with a correction bias, normalised queries and keys, more
    query heads than key heads, half of each head rotated, embeddings not tied.
    """
    return MiniMaxM2Config(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=64,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=MAX_TOKENS,
        num_local_experts=32,
        num_experts_per_tok=4,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 0.5,
        },
        initializer_range=0.05,
        tie_word_embeddings=False,
        pad_token_id=pad,
        bos_token_id=begin,
        eos_token_id=end,
    )


def new_model(config: MiniMaxM2Config, seed: int) -> MiniMaxM2ForCausalLM:
    """A freshly initialised model in float32."""
    set_seed(seed)
    model = MiniMaxM2ForCausalLM(config)  # type: ignore[no-untyped-call]
    model.set_experts_implementation("grouped_mm")  # the loop over experts is a third slower
    return model


def round_to_checkpoint(model: MiniMaxM2ForCausalLM) -> None:
    """Round the weights to bfloat16; the routers' correction biases stay float32.

    The biases are rounded to values that bfloat16 can hold too: a loader that casts buffers along
    with the weights then chooses the same experts.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    for layer in model.model.layers:
        bias = layer.mlp.e_score_correction_bias
        bias.copy_(bias.to(torch.bfloat16).float())

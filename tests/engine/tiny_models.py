"""Tiny models of several architectures, random but with routing that differs between tokens, and
a tokenizer for all of them. Saved as a person would have them: a directory with safetensors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    Ernie4_5_MoeConfig,
    Glm4MoeConfig,
    GptOssConfig,
    GraniteMoeConfig,
    LlamaConfig,
    MiniMaxM2Config,
    MixtralConfig,
    OlmoeConfig,
    PhimoeConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

from workers.engine.formats.fp8_blocks import Fp8Blocks, quantize_blocks, scale_name
from workers.engine.rows.calibration_rows import CalibrationRow

VOCABULARY = 320
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}"
)
SHARED = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}

WITHOUT_HEAD = {key: value for key, value in SHARED.items() if key != "head_dim"}
LEADING_DENSE = {
    "intermediate_size": 96,
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}


def minimax_m2(**changes: object) -> PreTrainedConfig:
    """MiniMax-M2: sigmoid scores with a correction bias, checkpoint names w1, w2, w3."""
    return MiniMaxM2Config(
        **{
            **SHARED,
            "intermediate_size": 32,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "rotary_dim": 8,
            **changes,
        }
    )


def mixtral(**changes: object) -> PreTrainedConfig:
    """Mixtral: softmax router, checkpoint names w1, w2, w3."""
    sizes = {"intermediate_size": 32, "num_local_experts": 4, "num_experts_per_tok": 2}
    return MixtralConfig(**{**SHARED, **sizes, **changes})


def qwen3_moe() -> PreTrainedConfig:
    """Qwen3-MoE: the first layer is dense here, as some models have it."""
    return Qwen3MoeConfig(
        **SHARED, intermediate_size=96, moe_intermediate_size=32, num_experts=4,
        num_experts_per_tok=2, norm_topk_prob=True, mlp_only_layers=[0],
    )  # fmt: skip


def qwen2_moe() -> PreTrainedConfig:
    """Qwen2-MoE: a shared expert with a gate of its own reads the norm too."""
    return Qwen2MoeConfig(
        **WITHOUT_HEAD, intermediate_size=96, moe_intermediate_size=32, num_experts=4,
        num_experts_per_tok=2, shared_expert_intermediate_size=64,
    )  # fmt: skip


def granite_moe(**changes: object) -> PreTrainedConfig:
    """Granite-MoE: its checkpoints keep the experts fused."""
    sizes = {"intermediate_size": 32, "num_local_experts": 4, "num_experts_per_tok": 2}
    return GraniteMoeConfig(**{**WITHOUT_HEAD, **sizes, **changes})


def gpt_oss() -> PreTrainedConfig:
    """gpt-oss: fused experts with biases and a clamped up, attention with sinks of its own."""
    return GptOssConfig(**SHARED, intermediate_size=32, num_local_experts=4, num_experts_per_tok=2)


def olmoe() -> PreTrainedConfig:
    """OLMoE: norms over the whole query and key."""
    return OlmoeConfig(**WITHOUT_HEAD, intermediate_size=32, num_experts=4, num_experts_per_tok=2)


def glm4_moe() -> PreTrainedConfig:
    """GLM-4-MoE: a leading dense layer, a shared expert, sigmoid scores with a bias."""
    return Glm4MoeConfig(
        **SHARED, **LEADING_DENSE, n_group=1, topk_group=1, partial_rotary_factor=0.5
    )


def deepseek_v3() -> PreTrainedConfig:
    """DeepSeek-V3: latent attention, routing limited to groups, a leading dense layer."""
    return DeepseekV3Config(
        **{**WITHOUT_HEAD, "num_key_value_heads": 4}, **LEADING_DENSE, n_group=4, topk_group=2,
        q_lora_rank=32, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=16, v_head_dim=16,
    )  # fmt: skip


def phimoe() -> PreTrainedConfig:
    """PhiMoE: layer norms with a bias, a sparse mixer as router, checkpoint names w1, w2, w3."""
    return PhimoeConfig(
        **WITHOUT_HEAD, intermediate_size=32, num_local_experts=4, num_experts_per_tok=2
    )


def ernie4_5_moe() -> PreTrainedConfig:
    """ERNIE 4.5: stands for an architecture nobody thought of when the engine was written."""
    return Ernie4_5_MoeConfig(
        **WITHOUT_HEAD, intermediate_size=96, moe_intermediate_size=32, moe_num_experts=8, moe_k=2,
        moe_num_shared_experts=1, moe_layer_start_index=1,
    )  # fmt: skip


def llama() -> PreTrainedConfig:
    """Llama: dense, as many key as query heads."""
    return LlamaConfig(**{**SHARED, "num_key_value_heads": 4}, intermediate_size=96)


def qwen3() -> PreTrainedConfig:
    """Qwen3: dense, grouped queries, norms on query and key."""
    return Qwen3Config(**SHARED, intermediate_size=96)


MOE: dict[str, Callable[[], PreTrainedConfig]] = {
    "minimax_m2": minimax_m2,
    "mixtral": mixtral,
    "qwen3_moe": qwen3_moe,
    "qwen2_moe": qwen2_moe,
    "olmoe": olmoe,
    "glm4_moe": glm4_moe,
    "deepseek_v3": deepseek_v3,
    "phimoe": phimoe,
    "ernie4_5_moe": ernie4_5_moe,
}
# Their checkpoints keep the experts of a layer in one tensor.
FUSED: dict[str, Callable[[], PreTrainedConfig]] = {"gpt_oss": gpt_oss, "granite_moe": granite_moe}
DENSE: dict[str, Callable[[], PreTrainedConfig]] = {"llama": llama, "qwen3": qwen3}


def tiny_model(
    config: PreTrainedConfig, dtype: torch.dtype = torch.float32, seed: int = 0
) -> PreTrainedModel:
    """A random model of the config. Weights are larger than transformers' own, norms and routers
    vary by channel, so that smoothing has something to find."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.copy_(torch.rand_like(parameter) * 2 + 0.2)
            elif "embed" in name:
                parameter.normal_(0, 1)
            else:
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
        for name, buffer in model.named_buffers():
            if "correction_bias" in name:
                buffer.normal_(0, 0.1)
    model.config.dtype = dtype
    return model.to(dtype)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and the tokens of the chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
    vocabulary = {token: at for at, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[], unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def save(model: PreTrainedModel, directory: Path) -> Path:
    """The model with tokenizer, generation config and licence, as published."""
    model.save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    (directory / "LICENSE").write_text("The licence of the tiny model.\n", encoding="utf-8")
    return directory


def in_fp8_blocks(directory: Path, blocks: Fp8Blocks) -> Path:
    """Rewrite a saved model with its projections in FP8 blocks, as MiniMax and DeepSeek publish
    theirs."""
    file = directory / "model.safetensors"
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(file).items():
        if re.search(r"(_proj|\.w[123])\.weight$", name):
            tensors[name], tensors[scale_name(name)] = quantize_blocks(tensor, blocks)
        else:
            tensors[name] = tensor
    save_file(tensors, file, metadata={"format": "pt"})
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "weight_block_size": [blocks.rows, blocks.columns],
        "modules_to_not_convert": ["gate", "e_score_correction_bias", "lm_head"],
    }
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


def write_jsonl(file: Path, rows: int, length: int, seed: int = 0) -> Path:
    """Rows of text of about ``length`` bytes, with facets that repeat."""
    generator = torch.Generator().manual_seed(seed)
    words = [
        "fn main",
        "print(",
        "the",
        "experts",
        "\u05e9\u05dc\u05d5\u05dd",
        "mean",
        "==",
        "\n",
        "x = 1",
        "law",
    ]
    lines = []
    for at in range(rows):
        text = ""
        while len(text) < length + at % 5:
            text += words[int(torch.randint(len(words), (), generator=generator))] + " "
        row = {
            "text": text,
            "spoken_language": ("en", "he")[at % 2],
            "programming_language": ("Rust", "", "Python")[at % 3],
            "domain": ("code", "law")[at % 2],
        }
        lines.append(json.dumps(row, ensure_ascii=False))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def rows_of(*lengths: int) -> list[CalibrationRow]:
    """Rows of random tokens of these lengths."""
    generator = np.random.default_rng(0)
    return [
        CalibrationRow(str(at), generator.integers(0, 300, length).astype(np.int32), {})
        for at, length in enumerate(lengths)
    ]

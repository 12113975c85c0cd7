"""What a model's ``config.json`` says of its experts, whatever its authors called it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Config = Mapping[str, Any]

# Sources that are dequantized to be calibrated; what a recipe leaves alone stays as it is.
FP8_BLOCKS = "FP8 blocks"
COMPRESSED = "compressed-tensors"

# Keys of the configurations in transformers 5.17, the usual ones first.
EXPERTS = (
    "num_local_experts",
    "num_experts",
    "n_routed_experts",
    "moe_num_experts",
    "num_routed_experts",
)
TOP_K = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "top_k_experts",
    "moe_topk",
    "moe_top_k",
    "moe_k",
)
MOE_INTERMEDIATE = ("moe_intermediate_size", "expert_intermediate_size", "expert_ffn_hidden_size")
LAYERS = ("num_hidden_layers", "n_layer", "num_layers")
SCORING = (
    "scoring_func",
    "moe_router_activation_func",
    "score_function",
    "router_scoring_func",
    "expert_selection_fn",
)

# Routers whose configuration does not name their function, read in transformers 5.17's models.
SIGMOID_BY_MODEL = frozenset(
    {
        "afmoe",
        "axk1",
        "axk2",
        "deepseek_v3",
        "deepseek_v32",
        "dots1",
        "exaone_moe",
        "glm4_moe",
        "glm4_moe_lite",
        "glm4v_moe_text",
        "glm5_next_text",
        "glm_moe_dsa",
        "hy_v3",
        "hy_v4",
        "inkling_text",
        "kimi_linear",
        "laguna",
        "lfm2_moe",
        "llama4_text",
        "mimo_v2_flash",
        "minimax_m2",
        "minimax_m3_vl_text",
        "nemotron_h",
        "solar_open",
        "step3p5",
    }
)


def text_config(config: Config) -> Config:
    """The part that describes the language model, in models that see or hear as well."""
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) else config


def number(config: Config, keys: Iterable[str]) -> int | None:
    """The first of some keys that holds a whole number, or a list of the same one for every
    layer."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, list) and value and value.count(value[0]) == len(value):
            value = value[0]
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def moe_layers(config: Config, layers: int) -> list[int] | None:
    """The decoder layers that have experts, as the configuration says; None when it has no
    experts, every layer when it names none.

    ``mlp_layer_types`` lists them one by one; ``mlp_only_layers`` and ``first_k_dense_replace``
    take dense ones out; ``decoder_sparse_step``, ``interleave_moe_layer_step`` and
    ``moe_layer_freq`` take every n-th; ``moe_layer_start_index`` to ``moe_layer_end_index`` with
    ``moe_layer_interval`` is Ernie's way.
    """
    if not number(config, EXPERTS):
        return None
    types = config.get("mlp_layer_types")
    if isinstance(types, list):
        return [layer for layer, kind in enumerate(types[:layers]) if kind != "dense"]
    listed = config.get("moe_layers")
    if isinstance(listed, list):
        return sorted(int(layer) for layer in listed if int(layer) < layers)
    frequency = config.get("moe_layer_freq")
    if isinstance(frequency, list):
        return [layer for layer, sparse in enumerate(frequency[:layers]) if sparse]
    return [layer for layer in range(layers) if _is_sparse(config, layer, layers)]


def router_kind(config: Config, has_bias: bool) -> str | None:
    """How the router turns logits into weights, in words; None for a dense model."""
    if not number(config, EXPERTS):
        return None
    named = next((config[key] for key in SCORING if isinstance(config.get(key), str)), None)
    known = "sigmoid" if config.get("model_type") in SIGMOID_BY_MODEL else "softmax"
    return f"{named or known} with bias" if has_bias else str(named or known)


def quantization(config: Config) -> str | None:
    """The way the weights are quantized already, None when they are not."""
    found = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(found, Mapping):
        return None
    method = str(found.get("quant_method") or found.get("format") or "unnamed")
    return FP8_BLOCKS if method == "fp8" and found.get("weight_block_size") else method


def quantized_already(name: str, method: str) -> str:
    """The sentence that refuses a model as a source because it is quantized by ``method``."""
    explained = ": it is what such a job makes, and serves as it is. Give"
    return (
        f"{name} is quantized already ({method}){explained if method == COMPRESSED else ': give'} "
        "the checkpoint it was made from, in half or full precision or in FP8 blocks."
    )


def packed_bits(config: Config) -> int:
    """Bits of a packed weight (compressed-tensors, AWQ, GPTQ); 4 where it does not say."""
    found = config.get("quantization_config") or config.get("compression_config") or {}
    groups = found.get("config_groups") or {}
    for group in groups.values():
        bits = (group.get("weights") or {}).get("num_bits")
        if isinstance(bits, int):
            return bits
    bits = found.get("bits")
    return bits if isinstance(bits, int) else 4


def _is_sparse(config: Config, layer: int, layers: int) -> bool:
    if layer < (number(config, ("first_k_dense_replace",)) or 0):
        return False
    if layer in (config.get("mlp_only_layers") or ()):
        return False
    step = number(config, ("decoder_sparse_step", "interleave_moe_layer_step"))
    if step and (layer + 1) % step:
        return False
    frequency = number(config, ("moe_layer_freq",))
    if frequency and layer % frequency:
        return False
    return _in_ernie_range(config, layer, layers)


def _in_ernie_range(config: Config, layer: int, layers: int) -> bool:
    start = number(config, ("moe_layer_start_index",))
    if start is None:
        return True
    end = number(config, ("moe_layer_end_index",))
    last = layers - 1 if end in (None, -1) else end
    interval = number(config, ("moe_layer_interval",)) or 1
    return start <= layer <= (last or 0) and (layer + 1) % interval == 0

"""What is quantized: a model's layers, experts, router and size, without loading it.

Read from ``config.json`` and the safetensors headers. Where the two disagree on experts the
tensors are believed and the difference is a warning.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, Field

from app.base_models import configuration
from app.base_models.model_files import read_json
from app.base_models.safetensors_headers import Tensor, Weights, read_weights
from app.errors import ModelRefused

LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")
EXPERT = re.compile(r"\.experts\.(\d+)\.")
# All experts of a layer in one tensor, [experts, ...]: gpt-oss and Llama 4, Granite's own names.
FUSED = re.compile(
    r"\.((?P<into>experts\.gate_up_proj|input_linear\.weight)"
    r"|experts\.down_proj|output_linear\.weight)(_blocks)?$"
)
ROUTER_BIAS = re.compile(r"(e_score_correction_bias|expert_bias)$")

# Names the checkpoint uses → names of the modules after linearization, which recipes speak of.
LINEARIZED = (
    (re.compile(r"\.block_sparse_moe\.experts\."), ".mlp.experts."),
    (re.compile(r"(\.experts\.\d+)\.w1$"), r"\1.gate_proj"),
    (re.compile(r"(\.experts\.\d+)\.w2$"), r"\1.down_proj"),
    (re.compile(r"(\.experts\.\d+)\.w3$"), r"\1.up_proj"),
)

# Parts of a quantized weight that are no parameters of the model.
BOOKKEEPING = re.compile(
    r"(_scale|_scale_inv|_zero_point|_shape|_g_idx|\.scales|\.qzeros|\.g_idx)$"
)
PACKED = re.compile(r"(\.weight_packed|\.qweight)$")


class ModelSummary(BaseModel):
    """A model's architecture.

    ``parameters`` is exact, from the shapes. ``experts`` and ``top_k`` are for each of the
    ``moe_layers``; all three are 0 and ``router`` is None for a dense model. ``dtypes`` counts
    parameters by type. ``fingerprint`` changes when the configuration, a name, a shape or a type
    does. ``weight_shapes`` has rows and columns by module name, ``weight_bytes`` what a number of
    each takes in the files, with the factors of its blocks; they are not part of the JSON.
    """

    name: str
    path: str
    architecture: str
    model_type: str
    layers: int
    moe_layers: int
    moe_layer_indices: list[int]
    experts: int
    top_k: int
    router: str | None
    fused_experts: bool
    parameters: int
    hidden: int | None
    moe_intermediate: int | None
    vocabulary: int | None
    max_positions: int | None
    dtypes: dict[str, int]
    size_bytes: int
    tensors: int
    has_tokenizer: bool
    has_chat_template: bool
    quantization: str | None
    warnings: list[str]
    fingerprint: str
    weight_shapes: dict[str, tuple[int, int]] = Field(default={}, exclude=True, repr=False)
    weight_bytes: dict[str, float] = Field(default={}, exclude=True, repr=False)


def describe(path: Path) -> ModelSummary:
    """The architecture of the model in a directory.

    Raises ModelRefused with one sentence when it is not there, has no configuration, no
    safetensors, a missing shard or a damaged file. A missing tokenizer or chat template is a
    warning here: :mod:`app.rendering.tokenizer` refuses when one is needed.
    """
    config = _config(path)
    weights = read_weights(path)
    text = configuration.text_config(config)
    layers = configuration.number(text, configuration.LAYERS) or 0
    hidden = configuration.number(text, ("hidden_size", "n_embd"))
    found = _experts_by_layer(weights.tensors.values(), layers)
    experts = max(found.values(), default=0)
    has_bias = any(ROUTER_BIAS.search(name) for name in weights.tensors)
    dtypes = _parameters_by_dtype(weights, configuration.packed_bits(config))
    has_tokenizer, has_template = _has_tokenizer(path), _has_chat_template(path)
    return ModelSummary(
        name=path.resolve().name,
        path=str(path.resolve()),
        architecture=_architecture(config),
        model_type=str(config.get("model_type", "unknown")),
        layers=layers,
        moe_layers=len(found),
        moe_layer_indices=sorted(found),
        experts=experts,
        top_k=(configuration.number(text, configuration.TOP_K) or 0) if found else 0,
        router=configuration.router_kind(text, has_bias) if found else None,
        fused_experts=any(_is_fused(tensor) for tensor in weights.tensors.values()),
        parameters=sum(dtypes.values()),
        hidden=hidden,
        moe_intermediate=_moe_intermediate(text) if found else None,
        vocabulary=configuration.number(text, ("vocab_size",)),
        max_positions=configuration.number(text, ("max_position_embeddings", "n_positions")),
        dtypes=dtypes,
        size_bytes=weights.size_bytes,
        tensors=len(weights.tensors),
        has_tokenizer=has_tokenizer,
        has_chat_template=has_template,
        quantization=configuration.quantization(config),
        warnings=[
            *_disagreements(text, layers, found, experts),
            *_missing_parts(path, has_tokenizer, has_template),
        ],
        fingerprint=_fingerprint(path, weights),
        weight_shapes=dict(_weight_shapes(weights.tensors.values(), hidden or 0)),
        weight_bytes=dict(_weight_bytes(weights.tensors, hidden or 0)),
    )


def linearized_name(name: str) -> str:
    """The module name of a weight after linearization, as recipes write it."""
    for pattern, replacement in LINEARIZED:
        name = pattern.sub(replacement, name)
    return name


def _config(path: Path) -> configuration.Config:
    if not path.is_dir():
        raise ModelRefused(
            f"There is no model directory {path}. A model of the hub is downloaded first, for "
            "example with `hf download OWNER/NAME --local-dir DIR`."
        )
    if not (path / "config.json").is_file():
        raise ModelRefused(
            f"{path} has no config.json: give the directory that holds the model's configuration "
            "and safetensors."
        )
    return read_json(path / "config.json")


def _architecture(config: configuration.Config) -> str:
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else "unknown"


def _experts_by_layer(tensors: Iterable[Tensor], layers: int) -> dict[int, int]:
    """How many experts the tensors of each decoder layer are for; layers past the decoder's last
    (multi-token prediction) are left out."""
    found: Counter[int] = Counter()
    for tensor in tensors:
        layer = LAYER.search(tensor.name)
        if layer is None or int(layer[1]) >= layers:
            continue
        expert = EXPERT.search(tensor.name)
        if expert is not None:
            found[int(layer[1])] = max(found[int(layer[1])], int(expert[1]) + 1)
        elif _is_fused(tensor):
            found[int(layer[1])] = tensor.shape[0]
    return dict(found)


def _parameters_by_dtype(weights: Weights, packed_bits: int) -> dict[str, int]:
    """Parameters by stored type, the most first. A packed weight counts what is packed in it,
    its scales and shapes count nothing."""
    counts: Counter[str] = Counter()
    for tensor in weights.tensors.values():
        if BOOKKEEPING.search(tensor.name):
            continue
        packed = PACKED.search(tensor.name) is not None
        counts[tensor.dtype] += tensor.elements * (32 // packed_bits if packed else 1)
    return dict(counts.most_common())


def _is_fused(tensor: Tensor) -> bool:
    return FUSED.search(tensor.name) is not None and len(tensor.shape) > 2


def _weight_shapes(tensors: Iterable[Tensor], hidden: int) -> Iterator[tuple[str, tuple[int, int]]]:
    """Module names of matrices with their rows and columns; fused experts as they will be after
    linearization."""
    for tensor in tensors:
        module = tensor.name.removesuffix(".weight")
        if module != tensor.name and len(tensor.shape) == 2:
            yield module, (tensor.shape[0], tensor.shape[1])
        fused = FUSED.search(tensor.name)
        if fused is not None and len(tensor.shape) == 3:
            yield from _unfused(tensor, fused, hidden)


def _weight_bytes(tensors: Mapping[str, Tensor], hidden: int) -> Iterator[tuple[str, float]]:
    """What a number of each matrix takes in the files; blocks of float8 have factors beside."""
    for tensor in tensors.values():
        factors = tensors.get(f"{tensor.name}_scale_inv")
        size = tensor.size_bytes + (factors.size_bytes if factors else 0)
        for module, _ in _weight_shapes([tensor], hidden):
            yield module, size / max(1, tensor.elements)


def _unfused(
    tensor: Tensor, fused: re.Match[str], hidden: int
) -> Iterator[tuple[str, tuple[int, int]]]:
    """The matrices of each expert in a fused tensor, which may be stored either way round: the
    side that is not the model's hidden size is the expert's own."""
    experts, *sides = tensor.shape
    own = sides[0] if sides[1] == hidden else sides[1]
    for expert in range(experts):
        name = f"{tensor.name[: fused.start()]}.experts.{expert}"
        if fused["into"]:
            yield f"{name}.gate_proj", (own // 2, hidden)
            yield f"{name}.up_proj", (own // 2, hidden)
        else:
            yield f"{name}.down_proj", (hidden, own)


def _moe_intermediate(config: configuration.Config) -> int | None:
    named = configuration.number(config, configuration.MOE_INTERMEDIATE)
    return named or configuration.number(config, ("intermediate_size",))


def _disagreements(
    config: configuration.Config, layers: int, found: dict[int, int], experts: int
) -> Iterator[str]:
    stated = configuration.number(config, configuration.EXPERTS) or 0
    stated_layers = configuration.moe_layers(config, layers) or []
    if stated != experts:
        yield f"config.json names {stated:,} experts, the weights have {experts:,}."
    elif sorted(found) != stated_layers:
        yield (
            f"config.json names {len(stated_layers):,} layers with experts, "
            f"the weights have {len(found):,}."
        )
    if len(set(found.values())) > 1:
        yield "The layers have different numbers of experts; the largest is shown."


def _missing_parts(path: Path, has_tokenizer: bool, has_template: bool) -> Iterator[str]:
    if not has_tokenizer:
        yield f"{path} has no tokenizer.json: no calibration set can be built for it."
    if not has_template:
        yield f"{path} has no chat template: no calibration set can be built for it."


def _has_tokenizer(path: Path) -> bool:
    return (path / "tokenizer.json").is_file()


def _has_chat_template(path: Path) -> bool:
    named = read_json(path / "tokenizer_config.json").get("chat_template")
    return (path / "chat_template.jinja").is_file() or bool(named)


def _fingerprint(path: Path, weights: Weights) -> str:
    config = (path / "config.json").read_bytes()
    return hashlib.sha256(config + weights.headers_sha256.encode()).hexdigest()

"""Models and tokenizers from a local directory, plainly, and their experts as Linear layers.

``llmcompressor.modeling.moe.linearize.load_quantizable_moe`` imports torchvision for Qwen-like
models; loading plainly and calling ``linearize_moe`` afterwards does not.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.offload import OffloadCache
from compressed_tensors.utils import patch_attr
from llmcompressor.modeling.moe import linear_experts
from llmcompressor.modeling.moe.linear_experts import LinearExperts2D
from llmcompressor.modeling.moe.linearize import get_non_linearized_moes
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    FineGrainedFP8Config,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from app.base_models.configuration import quantization, quantized_already
from app.errors import ModelRefused
from workers.engine.formats.fp8_blocks import (
    FP8,
    Fp8Blocks,
    blocks_of,
    dequantize_blocks,
    scale_name,
    written_blocks,
    written_name,
)
from workers.engine.formats.safetensors_files import Shards
from workers.engine.models.checkpoint_names import checkpoint_names
from workers.engine.rows.batches import vocabulary_of
from workers.engine.rows.calibration_rows import ModelLimits

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tiktoken.model")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
NO_POSITION_LIMIT = 1 << 30
GROUPED_ROW_BYTES = 16
EXPERTS_DIMENSIONS = 3


def read_config(directory: Path) -> dict[str, Any]:
    """``config.json`` of a model directory.

    Raises ModelRefused when the directory, the file or its JSON is missing or broken.
    """
    if not directory.is_dir():
        raise ModelRefused(f"There is no model directory at {directory}.")
    file = directory / "config.json"
    if not file.is_file():
        raise ModelRefused(f"{directory} is not a model: it has no config.json.")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelRefused(f"{file} is not JSON: {error}.") from error
    if not isinstance(config, dict):
        raise ModelRefused(f"{file} is not a JSON object.")
    if not isinstance(config.get("quantization_config") or {}, dict):
        raise ModelRefused(f"quantization_config in {file} is not a JSON object.")
    return config


def refuse_unusable_source(directory: Path, weights: bool = True) -> None:
    """Raise ModelRefused when the directory cannot be a source: not a model, quantized already,
    or, where ``weights`` are looked for, none in safetensors or files that are not whole."""
    config = read_config(directory)
    method = quantization(config)
    if method is not None and blocks_of(config) is None:
        raise ModelRefused(quantized_already(str(directory), method))
    if weights:
        refuse_without_safetensors(directory)
        Shards(directory).refuse_broken()


def has_weights(directory: Path) -> bool:
    """Whether a directory has files of weights, in whatever format."""
    return any(file for kind in ("*.safetensors", *PICKLES) for file in directory.glob(kind))


def refuse_without_safetensors(directory: Path) -> None:
    """Raise ModelRefused unless the directory has weights in safetensors."""
    if any(directory.glob("*.safetensors")):
        return
    if has_weights(directory):
        raise ModelRefused(
            f"{directory} has its weights in pickle files only, which can run code when opened: "
            "convert them to safetensors first."
        )
    raise ModelRefused(f"{directory} has no weights: no .safetensors file is there.")


def load_model(
    directory: Path, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> PreTrainedModel:
    """The model in evaluation mode, from local safetensors, without running code of the model's
    author. ``dtype=None`` keeps the checkpoint's own; weights in FP8 blocks are dequantized.

    Raises ModelRefused when the directory cannot be loaded.
    """
    blocks = blocks_of(read_config(directory))
    refuse_without_safetensors(directory)
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=dtype or "auto",
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            **({"quantization_config": _dequantizing(blocks)} if blocks else {}),
        )
    except (
        OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError,
    ) as error:  # fmt: skip
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelRefused(f"The model at {directory} cannot be loaded: {first_line}") from error
    if blocks is not None and dtype == torch.float32:
        # What such a source keeps in half precision, its routers say, is loaded in that.
        nn.Module.to(model, dtype)
    nn.Module.to(model, device).train(False)
    _refrain_from_grouped_products(model)
    return model


def _refrain_from_grouped_products(model: PreTrainedModel) -> None:
    """Let transformers run experts one after the other where a row of theirs is no multiple of 16
    bytes: torch's grouped product refuses those."""
    rows = [
        size * parameter.element_size()
        for _, experts in get_non_linearized_moes(model)
        for parameter in experts.parameters(recurse=False)
        if parameter.ndim == EXPERTS_DIMENSIONS
        for size in parameter.shape[1:]
    ]
    if any(row % GROUPED_ROW_BYTES for row in rows):
        model.set_experts_implementation("eager")


@torch.no_grad()
def refuse_not_finite(model: PreTrainedModel, directory: Path) -> None:
    """Raise ModelRefused, naming the tensor in the files, for a loaded weight that is not a
    number."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ModelRefused(
                f"{_first_not_finite(directory) or name} of the model at {directory} has values "
                "that are not finite: fetch its files again."
            )


def _first_not_finite(directory: Path) -> str | None:
    """The first tensor of a model's files that has values which are not finite; loading fuses
    experts, so a parameter's name does not tell which of them it is."""
    shards = Shards(directory)
    for name in shards.tensors:
        value = shards.tensor(name)
        if value.is_floating_point() and not bool(value.float().isfinite().all()):
            return name
    return None


def _dequantizing(blocks: Fp8Blocks) -> FineGrainedFP8Config:
    size = (blocks.rows, blocks.columns)
    return FineGrainedFP8Config(weight_block_size=size, dequantize=True)


@torch.no_grad()
def load_checkpoint(
    directory: Path, dtype: torch.dtype, device: str | torch.device = "cpu"
) -> PreTrainedModel:
    """A quantized checkpoint, its weights dequantized in their own dtype and then widened to
    ``dtype``: casting the scales first would give other values than those that were measured.

    compressed-tensors would dequantize at the first forward, which fails where weights in FP8
    blocks become float32 in a model of half precision. Raises ModelRefused.
    """
    model: Any = load_model(directory)
    if hasattr(model, "ct_decompress_hook"):
        model.hf_quantizer.compressor.decompress_model(model=model)
    nn.Module.to(model, device, dtype)
    _restore_fp8_blocks(model, directory)
    return model  # type: ignore[no-any-return]


def _restore_fp8_blocks(model: PreTrainedModel, directory: Path) -> None:
    """Dequantize a checkpoint's FP8 blocks once more, by factors in float32 as they are stored:
    transformers rounds those to the model's half precision as it loads them."""
    blocks = written_blocks(read_config(directory))
    if blocks is None:
        return
    shards = Shards(directory)
    for name, parameter in checkpoint_names(model, shards.tensors).parameter_of.items():
        factors = written_name(scale_name(name))
        if shards.tensors[name].dtype == FP8 and factors in shards.tensors:
            value = dequantize_blocks(shards.tensor(name), shards.tensor(factors), blocks)
            model.get_parameter(parameter).copy_(value)


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """The model's tokenizer. Raises ModelRefused when there is none or it cannot be read."""
    read_config(directory)
    if not any((directory / name).is_file() for name in TOKENIZER_FILES):
        raise ModelRefused(
            f"The model at {directory} has no tokenizer: none of {', '.join(TOKENIZER_FILES)} is "
            "beside its config.json."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelRefused(f"The tokenizer at {directory} cannot be read: {error}") from error
    return tokenizer


def limits_of(model: PreTrainedModel) -> ModelLimits:
    """How many token ids and positions the model has."""
    config = model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or NO_POSITION_LIMIT
    return ModelLimits(vocabulary=vocabulary_of(model), positions=int(positions))


def linearize(model: PreTrainedModel) -> PreTrainedModel:
    """Replace every fused experts module by one Linear a projection and expert, in place, a layer
    at a time.

    llmcompressor's ``linearize_moe`` keeps all fused modules until it is done, so that a model's
    experts are in memory twice; and it wraps each new Linear in an offload cache, even of a model
    that is not offloaded. That slows every forward and cannot be done on the meta device, so here
    only modules whose origin was offloaded are wrapped.
    """
    offloaded = any(isinstance(module._parameters, OffloadCache) for module in model.modules())
    with contextlib.ExitStack() as stack:
        if not offloaded:
            stack.enter_context(torch.device(model.device))
            stack.enter_context(patch_attr(linear_experts, "offload_module", _leave_in_place))
        for name in [name for name, _ in get_non_linearized_moes(model)]:
            _linearize_one(model, name)
    return model


def _linearize_one(model: PreTrainedModel, name: str) -> None:
    fused: Any = model.get_submodule(name)
    kind = LinearExperts2D.get_linear_experts_cls(type(fused))
    experts = kind.from_experts_module(fused, getattr(fused, "config", model.config))
    for key, value in _settings(fused).items():
        if key not in vars(experts):
            setattr(experts, key, value)
    model.set_submodule(name, experts)


def _settings(experts: nn.Module) -> dict[str, float]:
    """Numbers of an experts module that its activation may ask for: MiniMax-M3's has one that
    llmcompressor does not know."""
    return {key: value for key, value in vars(experts).items() if isinstance(value, float)}


def _leave_in_place(module: nn.Module, **_: object) -> nn.Module:
    return module

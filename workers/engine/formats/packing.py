"""A quantized weight as the tensors a checkpoint holds, and back.

Scales are computed in the dtype of the checkpoint, whatever dtype the search ran in, so that what
is written is what was measured. Symmetric integers of which a word of 32 bits holds a whole number
are packed and unpacked here, to the bits of compressed-tensors' ``pack-quantized`` in a tenth of
its time; everything else is left to compressed-tensors.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.config import CompressionFormat
from compressed_tensors.quantization import QuantizationScheme, QuantizationType
from compressed_tensors.quantization.utils import calculate_qparams
from llmcompressor.observers.helpers import flatten_for_calibration

from workers.engine.formats.rounding import Rounder

PACKED_INTEGERS = ("weight_packed", "weight_scale", "weight_shape")
FLOATS = ("weight", "weight_scale")
SUFFIXES = ("weight", *PACKED_INTEGERS, "weight_zero_point")


@dataclass(frozen=True)
class PackedWeight:
    """One quantized weight: ``tensors`` by suffix (integers: ``weight_packed`` int32,
    ``weight_scale``, ``weight_shape`` int64, and ``weight_zero_point`` int32 when asymmetric;
    floats: ``weight`` float8 and ``weight_scale``), its scheme, and the SHA-256 of the dequantized
    weight's bytes."""

    tensors: dict[str, torch.Tensor]
    scheme: QuantizationScheme
    dequantized_sha256: str

    def dequantized(self, device: torch.device | None = None) -> torch.Tensor:
        """The weight [out, in] a reader of the checkpoint gets, in the checkpoint's dtype, worked
        out on ``device`` (default: the CPU)."""
        tensors = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return dequantize(tensors, self.scheme)


def pack_weight(
    weight: torch.Tensor, scheme: QuantizationScheme, dtype: torch.dtype
) -> PackedWeight:
    """Round ``weight`` [out, in] to ``dtype``, then quantize it by its groups' least and greatest
    values (llmcompressor's minmax observer) and pack it."""
    weight = weight.detach().to(dtype)
    pack = _pack_words if _in_words(scheme, weight.shape[1]) else _pack
    there = pack(weight, scheme)
    sha256 = sha256_of(dequantize(there, scheme))
    tensors = {name: tensor.cpu() for name, tensor in there.items()}
    return PackedWeight(tensors, scheme, sha256)


def _pack(weight: torch.Tensor, scheme: QuantizationScheme) -> dict[str, torch.Tensor]:
    assert scheme.weights is not None
    groups = flatten_for_calibration(weight, "weight", scheme.weights)
    scale, zero_point = calculate_qparams(
        min_vals=groups.amin(dim=(0, -1)),
        max_vals=groups.amax(dim=(0, -1)),
        quantization_args=scheme.weights,
    )
    state = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero_point}
    packed = _compressor(scheme).compress(state, scheme)
    return {name: packed[name].contiguous() for name in SUFFIXES if name in packed}


def _in_words(scheme: QuantizationScheme, columns: int) -> bool:
    """Whether a row of so many integers fills words of 32 bits, and is rounded in place."""
    args = scheme.weights
    assert args is not None
    return Rounder(args).in_place and 32 % args.num_bits == 0 and columns * args.num_bits % 32 == 0


def _pack_words(weight: torch.Tensor, scheme: QuantizationScheme) -> dict[str, torch.Tensor]:
    assert scheme.weights is not None
    rows, columns = weight.shape
    integers = weight.clone()
    groups = integers.view(-1, scheme.weights.group_size or columns)
    steps = Rounder(scheme.weights).quantize_(groups)
    shifts, half = _shifts(scheme, weight.device)
    words = integers.view(rows, -1, len(shifts)).to(torch.int32).add_(half)
    return {
        "weight_packed": words.bitwise_left_shift_(shifts).sum(dim=-1, dtype=torch.int32),
        "weight_scale": steps.view(rows, -1),
        "weight_shape": torch.tensor(weight.shape),
    }


def _unpack_words(tensors: dict[str, torch.Tensor], scheme: QuantizationScheme) -> torch.Tensor:
    scale, words = tensors["weight_scale"], tensors["weight_packed"]
    shifts, half = _shifts(scheme, words.device)
    integers = (words[..., None] >> shifts).bitwise_and_(2 * half - 1).sub_(half)
    rows, groups = scale.shape
    return integers.to(scale.dtype).view(rows, groups, -1).mul_(scale[..., None]).view(rows, -1)


def _shifts(scheme: QuantizationScheme, device: torch.device) -> tuple[torch.Tensor, int]:
    """Where in a word each of its integers begins, int32, and what is added to make them
    positive."""
    assert scheme.weights is not None
    bits = scheme.weights.num_bits
    return torch.arange(0, 32, bits, dtype=torch.int32, device=device), 1 << (bits - 1)


def dequantize(tensors: dict[str, torch.Tensor], scheme: QuantizationScheme) -> torch.Tensor:
    """The weight [out, in] held by packed tensors, in the dtype of their scale."""
    if "weight_packed" in tensors and _in_words(scheme, int(tensors["weight_shape"][1])):
        return _unpack_words(tensors, scheme)
    weight: torch.Tensor = _compressor(scheme).decompress(dict(tensors), scheme)["weight"]
    return weight.contiguous()


def format_of(scheme: QuantizationScheme) -> str:
    """The format of compressed-tensors a scheme's weights are written in."""
    assert scheme.weights is not None
    is_float = scheme.weights.type == QuantizationType.FLOAT
    chosen = CompressionFormat.float_quantized if is_float else CompressionFormat.pack_quantized
    return str(chosen.value)


def tensors_of(scheme: QuantizationScheme) -> tuple[str, ...]:
    """The suffixes of a weight's tensors under a scheme."""
    assert scheme.weights is not None
    if scheme.weights.type == QuantizationType.FLOAT:
        return FLOATS
    return PACKED_INTEGERS if scheme.weights.symmetric else (*PACKED_INTEGERS, "weight_zero_point")


def _compressor(scheme: QuantizationScheme) -> type[BaseCompressor]:
    found: type[BaseCompressor] = BaseCompressor.get_value_from_registry(format_of(scheme))
    return found


def sha256_of(tensor: torch.Tensor) -> str:
    """SHA-256 of a tensor's bytes, in its own dtype and row-major order."""
    flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).hexdigest()

"""Quantized and dequantized weights, many at once, for the scale search.

The arithmetic is that of compressed-tensors' ``calculate_qparams`` and ``fake_quantize`` with the
minmax observer, operation for operation, so the values are equal bit for bit; symmetric integers,
which every preset uses, are rounded in place in buffers that stay in a processor's cache; an
accelerator is given much more at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationStrategy,
    QuantizationType,
)
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import calculate_qparams
from llmcompressor.observers.helpers import flatten_for_calibration

CHUNK_BYTES = 1 << 19
ACCELERATOR_CHUNK_BYTES = 1 << 28


@dataclass
class Rounder:
    """Rounds weights by one scheme. Its scratch tensors are kept, one for each shape and use."""

    args: QuantizationArgs
    _kept: dict[tuple[str, torch.Size, torch.dtype, torch.device], torch.Tensor] = field(
        default_factory=dict
    )

    @property
    def in_place(self) -> bool:
        """Whether weights are rounded in buffers: symmetric integers by group or by row."""
        return (
            self.args.symmetric
            and self.args.type == QuantizationType.INT
            and self.args.scale_dtype is None
            and self.args.strategy in (QuantizationStrategy.GROUP, QuantizationStrategy.CHANNEL)
        )

    def scratch(self, use: str, like: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """An uninitialised tensor of the shape of ``like``, the same one at every call."""
        key = (use, like.shape, dtype, like.device)
        if key not in self._kept:
            self._kept[key] = torch.empty(like.shape, dtype=dtype, device=like.device)
        return self._kept[key]

    def scaled(
        self, weights: torch.Tensor, scales: torch.Tensor, out: torch.Tensor
    ) -> torch.Tensor:
        """Q(W · s) / s of ``weights`` [..., out, in] with ``scales`` [..., in], into ``out``.

        The product is rounded once from the scales' own dtype, as stock does. It has to be: the
        greatest weight of every group lies halfway between two integers, and a last bit decides
        to which it is rounded.
        """
        self._multiply(weights, scales.unsqueeze(-2), out)
        if self.in_place:
            self._round_(out)
        else:
            out.copy_(self._rounded(out))
        return out.div_(scales.unsqueeze(-2).to(out.dtype))

    def _multiply(self, weights: torch.Tensor, scales: torch.Tensor, out: torch.Tensor) -> None:
        wide = torch.promote_types(weights.dtype, scales.dtype)
        if wide == out.dtype or out.device.type != "cpu":
            torch.mul(weights, scales, out=out)
        else:  # On a CPU torch would convert into tensors that it makes anew at every call.
            out.copy_(self.scratch("wide", weights, wide).copy_(weights).mul_(scales))

    def _round_(self, weights: torch.Tensor) -> None:
        """Round ``weights`` [..., in] in place."""
        groups = weights.view(-1, self.args.group_size or weights.shape[-1])
        groups.mul_(self.quantize_(groups))

    def quantize_(self, groups: torch.Tensor) -> torch.Tensor:
        """Turn ``groups`` [..., group] of weights into their integers in place; the step of each
        group [..., 1] comes back."""
        # On a CPU twice as fast as both ends at once, whose greater magnitude it is.
        magnitudes = torch.abs(groups, out=self.scratch("magnitudes", groups, groups.dtype))
        steps = magnitudes.amax(dim=-1, keepdim=True)
        # A number of Python's would be multiplied by its reciprocal on CUDA.
        steps.div_(steps.new_full((), ((1 << self.args.num_bits) - 1) / 2))
        steps.masked_fill_(steps == 0, torch.finfo(groups.dtype).eps)
        half = 1 << (self.args.num_bits - 1)
        groups.div_(steps).clamp_(-half, half - 1).round_()
        return steps

    def _rounded(self, weights: torch.Tensor) -> torch.Tensor:
        rows = weights.reshape(-1, weights.shape[-1])
        groups = flatten_for_calibration(rows, "weight", self.args)
        scale, zero_point = calculate_qparams(
            min_vals=groups.amin(dim=(0, -1)),
            max_vals=groups.amax(dim=(0, -1)),
            quantization_args=self.args,
        )
        rounded: torch.Tensor = fake_quantize(rows, scale, zero_point, self.args)
        return rounded.view_as(weights)


def chunks(weights: torch.Tensor) -> list[slice]:
    """Slices of the first dimension that are worked on together."""
    each = weights[0].numel() * weights.element_size()
    limit = CHUNK_BYTES if weights.device.type == "cpu" else ACCELERATOR_CHUNK_BYTES
    size = max(1, limit // max(1, each))
    return [slice(at, at + size) for at in range(0, len(weights), size)]

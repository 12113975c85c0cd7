"""Sources in FP8 blocks, as DeepSeek and MiniMax publish them.

A weight is stored as float8 (e4m3) beside ``weight_scale_inv``, one float32 factor for every block
of rows × columns: weight = float8 · factor, despite the name. In compressed-tensors the same
numbers are called ``weight_scale``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationScheme,
    QuantizationStrategy,
    QuantizationType,
)

FP8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FP8).max
STORED_SCALE = "weight_scale_inv"
WRITTEN_SCALE = "weight_scale"
METHOD = "fp8"


@dataclass(frozen=True)
class Fp8Blocks:
    """How a source stores its weights: block sizes, and whether activations are rounded to float8
    as they come (``activation_scheme: dynamic``)."""

    rows: int
    columns: int
    dynamic_activations: bool

    def scheme(self, targets: list[str]) -> QuantizationScheme:
        """The scheme of compressed-tensors that says the same."""
        activations = QuantizationArgs(
            num_bits=8,
            type=QuantizationType.FLOAT,
            strategy=QuantizationStrategy.GROUP,
            symmetric=True,
            dynamic=True,
            group_size=self.columns,
        )
        weights = QuantizationArgs(
            num_bits=8,
            type=QuantizationType.FLOAT,
            strategy=QuantizationStrategy.BLOCK,
            symmetric=True,
            dynamic=False,
            block_structure=[self.rows, self.columns],
        )
        return QuantizationScheme(
            targets=targets,
            weights=weights,
            input_activations=activations if self.dynamic_activations else None,
        )


def blocks_of(config: Mapping[str, Any]) -> Fp8Blocks | None:
    """The FP8 blocks of a source by its ``config.json``; None when it is stored otherwise."""
    section = config.get("quantization_config") or {}
    size = section.get("weight_block_size")
    if section.get("quant_method") != METHOD or not isinstance(size, list) or len(size) != 2:
        return None
    return Fp8Blocks(int(size[0]), int(size[1]), section.get("activation_scheme") != "static")


def written_blocks(config: Mapping[str, Any]) -> Fp8Blocks | None:
    """The FP8 blocks of a checkpoint of compressed-tensors, by its ``config.json``."""
    section = config.get("quantization_config") or {}
    for group in (section.get("config_groups") or {}).values():
        weights = group.get("weights") or {}
        if weights.get("strategy") == "block" and weights.get("type") == "float":
            rows, columns = weights["block_structure"]
            return Fp8Blocks(rows, columns, group.get("input_activations") is not None)
    return None


def scale_name(weight: str) -> str:
    """The name of the factors of a stored weight (``….weight`` → ``….weight_scale_inv``)."""
    return weight.removesuffix("weight") + STORED_SCALE


def written_name(stored: str) -> str:
    """The name a stored tensor has in the checkpoint."""
    if stored.endswith(f".{STORED_SCALE}"):
        return stored.removesuffix(STORED_SCALE) + WRITTEN_SCALE
    return stored


def dequantize_blocks(weight: torch.Tensor, scale: torch.Tensor, blocks: Fp8Blocks) -> torch.Tensor:
    """The weight float32 [rows, columns] of float8 ``weight`` and its factors."""
    return weight.float() * _spread(scale.float(), weight.shape, blocks)


def quantize_blocks(weight: torch.Tensor, blocks: Fp8Blocks) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight [rows, columns] as float8 and its factors float32, the greatest value of every
    block at float8's greatest."""
    weight = weight.float()
    rows, columns = weight.shape
    below, beside = -rows % blocks.rows, -columns % blocks.columns
    padded = torch.nn.functional.pad(weight, (0, beside, 0, below))
    high, wide = padded.shape
    tiles = padded.view(high // blocks.rows, blocks.rows, wide // blocks.columns, blocks.columns)
    scale = tiles.abs().amax(dim=(1, 3)) / LARGEST
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    rounded = (weight / _spread(scale, weight.shape, blocks)).clamp(-LARGEST, LARGEST).to(FP8)
    return rounded, scale


def _spread(scale: torch.Tensor, shape: torch.Size, blocks: Fp8Blocks) -> torch.Tensor:
    rows, columns = shape
    wide = scale.repeat_interleave(blocks.rows, 0).repeat_interleave(blocks.columns, 1)
    return wide[:rows, :columns]

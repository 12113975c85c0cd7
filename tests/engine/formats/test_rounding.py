"""Weights rounded many at once have the bits of compressed-tensors' own operations."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import calculate_qparams
from hypothesis import given, settings
from hypothesis import strategies as st
from llmcompressor.observers.helpers import flatten_for_calibration

from app.recipes.schema import Group
from workers.engine.formats.rounding import Rounder, chunks
from workers.engine.plan.targets import weight_args

SCHEMES = {
    "4 bits by 16": {"bits": 4, "group_size": 16},
    "8 bits by 32": {"bits": 8, "group_size": 32},
    "5 bits by row": {"bits": 5, "group_size": None},
    "zero points": {"bits": 4, "group_size": 16, "symmetric": False},
    "float8": {"bits": 8, "type": "float", "group_size": 32},
}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def reference(weight: torch.Tensor, scales: torch.Tensor, scheme: str) -> torch.Tensor:
    """As ``AWQModifier._compute_best_scale`` does it, one weight [out, in] at a time."""
    args = weight_args(Group.model_validate({"name": "g", "targets": ["x"], **SCHEMES[scheme]}))
    scaled = torch.empty_like(weight).copy_(weight * scales.view(1, -1))
    groups = flatten_for_calibration(scaled, "weight", args)
    step, zero = calculate_qparams(groups.amin(dim=(0, -1)), groups.amax(dim=(0, -1)), args)
    return fake_quantize(scaled, step, zero, args) / scales.to(weight.dtype).view(1, -1)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), rows=st.integers(1, 9), size=st.floats(1e-3, 1e3))
def test_bits_equal_the_librarys(
    scheme: str, dtype: torch.dtype, seed: int, rows: int, size: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = (torch.randn(3, rows, 64, generator=generator) * size).to(dtype)
    weights[0, 0, :32] = 0  # a group of zeros
    weights[1, 0, 5] = weights[1, 0].abs().max() * 7.5  # on the edge between two integers
    scales = torch.rand(3, 64, generator=generator, dtype=torch.float64) + 0.3
    args = weight_args(Group.model_validate({"name": "g", "targets": ["x"], **SCHEMES[scheme]}))
    found = Rounder(args).scaled(weights, scales, torch.empty_like(weights))
    for at in range(3):
        assert torch.equal(found[at], reference(weights[at], scales[at], scheme))


def test_chunks_cover_everything_once() -> None:
    weights = torch.empty(37, 256, 512)
    parts = chunks(weights)
    assert torch.equal(torch.cat([torch.arange(37)[part] for part in parts]), torch.arange(37))
    assert len(parts) > 1
    assert len(chunks(torch.empty(3, 4, 4))) == 1

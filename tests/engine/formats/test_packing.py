"""Packed weights are compressed-tensors' own, bit for bit, and come back as its reader has them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization.utils import calculate_qparams
from hypothesis import given, settings
from hypothesis import strategies as st
from llmcompressor.observers.helpers import flatten_for_calibration

from app.recipes.schema import Group
from workers.engine.formats.packing import format_of, pack_weight, tensors_of
from workers.engine.plan.targets import scheme_of

SCHEMES: dict[str, dict[str, Any]] = {
    "4 bits by 16": {"bits": 4, "group_size": 16},
    "8 bits by 24": {"bits": 8, "group_size": 24},
    "4 bits by row": {"bits": 4, "group_size": None},
    "5 bits by row": {"bits": 5, "group_size": None},
    "zero points": {"bits": 4, "group_size": 16, "symmetric": False},
    "float8": {"bits": 8, "type": "float", "group_size": 48},
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 9),
    columns=st.sampled_from([48, 96, 240]),
    size=st.floats(1e-3, 1e3),
)
def test_bits_equal_the_librarys(
    scheme: str, dtype: torch.dtype, seed: int, rows: int, columns: int, size: float
) -> None:
    chosen = scheme_of(Group.model_validate({"name": "g", "targets": ["x"], **SCHEMES[scheme]}))
    generator = torch.Generator().manual_seed(seed)
    weight = (torch.randn(rows, columns, generator=generator) * size).to(dtype)
    weight[0, :48] = 0  # groups of zeros
    weight[-1, 5] = weight.abs().max() * 7.5  # a group of which most are rounded to zero
    before = weight.clone()
    packed = pack_weight(weight, chosen, dtype)
    assert torch.equal(weight, before)
    compressor: Any = BaseCompressor.get_value_from_registry(format_of(chosen))
    groups = flatten_for_calibration(weight, "weight", chosen.weights)
    step, zero = calculate_qparams(
        groups.amin(dim=(0, -1)), groups.amax(dim=(0, -1)), chosen.weights
    )
    state = {"weight": weight, "weight_scale": step, "weight_zero_point": zero}
    expected = compressor.compress(state, chosen)
    assert tuple(packed.tensors) == tensors_of(chosen)
    for name, tensor in packed.tensors.items():
        assert tensor.dtype == expected[name].dtype, name
        assert tensor.is_contiguous(), name
        assert torch.equal(tensor, expected[name]), name
    back = compressor.decompress(dict(packed.tensors), chosen)["weight"]
    assert packed.dequantized().dtype == back.dtype
    assert torch.equal(packed.dequantized(), back)

"""Norms that add one to their weight, smoothed as any other.

While a model is quantized, such a norm stands in the tree with 1 + weight as its weight, so that
whatever divides a norm's weight divides the right thing. llmcompressor does the same for some
classes it knows by name (``llmcompressor.modeling.offset_norm``), but keeps 1 + weight in the
model's own type: in bfloat16 that rounds every norm of the model, smoothed or not, to an eighth of
a percent. Here it is float32, and only of the norms that are smoothed.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from compressed_tensors.utils import patch_attr
from torch import nn


class PlainNorm(nn.Module):
    """A norm that adds one to its weight, as one that does not: ``weight`` float32 is one more
    than the norm's. It runs the norm itself, with the weight a checkpoint would have."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self._norm = (norm,)  # in a tuple, so that its weight is not another one of the model's
        self.weight = nn.Parameter(norm.weight.data.float() + 1, requires_grad=False)
        bias = getattr(norm, "bias", None)
        self.bias = None if bias is None else nn.Parameter(bias.data.clone(), requires_grad=False)

    @property
    def own(self) -> dict[str, torch.Tensor]:
        """The norm's parameters as it has them, in its own type."""
        (norm,) = self._norm
        weight = (self.weight - 1).to(norm.weight.dtype)
        return {"weight": weight} if self.bias is None else {"weight": weight, "bias": self.bias}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the norm gives."""
        return torch.func.functional_call(self._norm[0], self.own, args, kwargs)


@contextlib.contextmanager
def plain_norms(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Put a plain norm in the place of each of ``names`` that adds one to its weight; afterwards
    they are themselves again, with the weights they then have."""
    replaced = {name: model.get_submodule(name) for name in dict.fromkeys(names)}
    plain = {name: PlainNorm(norm) for name, norm in replaced.items()}
    for name, norm in plain.items():
        model.set_submodule(name, norm)
    oneshot = importlib.import_module("llmcompressor.entrypoints.oneshot")
    try:
        with patch_attr(oneshot, "norm_calibration_context", contextlib.nullcontext):
            yield
    finally:
        for name, own in replaced.items():
            model.set_submodule(name, own)
            for parameter, value in plain[name].own.items():
                own.get_parameter(parameter).data.copy_(value)

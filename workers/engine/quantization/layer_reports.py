"""Packs each layer as soon as its weights are final, and measures how far they moved."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from llmcompressor.core import Event, State
from llmcompressor.modifiers import Modifier
from pydantic import ConfigDict, PrivateAttr
from torch import nn

from app.jobs.spec import ModuleReport
from workers.engine.awq.smoothing import weight_of
from workers.engine.formats.packing import PackedWeight, pack_weight
from workers.engine.formats.rounding import chunks
from workers.engine.models.architecture import layer_index


@dataclass
class PackedModules:
    """What was packed at one go: weights by module name, their errors, and for each decoder layer
    the sums of squares of the weights' error and of the weights."""

    packed: dict[str, PackedWeight] = field(default_factory=dict)
    modules: list[ModuleReport] = field(default_factory=list)
    energies: dict[int, tuple[float, float]] = field(default_factory=dict)


class LayerReporter(Modifier):
    """The last modifier of a recipe: after smoothing and calibration of a layer it packs every
    quantized weight and measures its error.

    ``names`` maps each quantized module to its name, ``dtypes`` its name to the checkpoint's
    dtype.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    names: dict[nn.Module, str]
    dtypes: Mapping[str, torch.dtype]

    _done: PackedModules = PrivateAttr(default_factory=PackedModules)

    def take(self) -> PackedModules:
        """What was packed since the last call."""
        done, self._done = self._done, PackedModules()
        return done

    @contextlib.contextmanager
    def as_packed(self) -> Iterator[None]:
        """Give every module packed since the last call of ``take`` the weight that a reader of the
        checkpoint gets; afterwards it has its own."""
        own: list[tuple[torch.Tensor, torch.Tensor]] = []
        try:
            for module, name in self.names.items():
                if name in self._done.packed:
                    weight = weight_of(module)
                    own.append((weight, weight.clone()))
                    weight.copy_(self._done.packed[name].dequantized(weight.device))
            yield
        finally:
            for weight, kept in own:
                weight.copy_(kept)

    def on_initialize(self, state: State, **kwargs: Any) -> bool:  # noqa: ARG002
        """Nothing to prepare."""
        return True

    @torch.no_grad()
    def on_sequential_epoch_end(
        self,
        state: State,  # noqa: ARG002
        event: Event,  # noqa: ARG002
        modules: list[nn.Module],
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Pack the quantized modules of the layer that was just calibrated."""
        for module in modules:
            if module in self.names:
                self._pack(self.names[module], module)

    def _pack(self, name: str, module: nn.Module) -> None:
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        packed = pack_weight(weight, module.quantization_scheme, self.dtypes[name])
        self._done.packed[name] = packed
        noise, signal = _squares(packed.dequantized(weight.device), weight.detach())
        index = layer_index(name)
        layer = -1 if index is None else index
        rows, columns = weight.shape
        report = ModuleReport(
            layer=layer,
            module=name,
            rows=rows,
            columns=columns,
            signal=signal,
            **error_figures(noise, signal),
        )
        self._done.modules.append(report)
        noise_before, signal_before = self._done.energies.get(layer, (0.0, 0.0))
        self._done.energies[layer] = (noise_before + noise, signal_before + signal)


def _squares(value: torch.Tensor, exact: torch.Tensor) -> tuple[float, float]:
    """The sums of squares of ``value - exact`` and of ``exact`` [out, in], in float64. Some rows at
    a time: float64 copies of a large weight would leave the processor's cache, ten times slower."""
    noise, signal = exact.new_zeros((2,), dtype=torch.float64)
    for rows in chunks(exact):
        wide = exact[rows].double()
        signal += wide.square().sum()
        noise += wide.sub_(value[rows]).square_().sum()
    return float(noise), float(signal)


def error_figures(noise: float, signal: float) -> dict[str, float]:
    """Relative mean squared error, noise over signal, and the same in dB (both sums of squares).

    A weight that is zero everywhere is represented exactly and gets 0 and 200 dB.
    """
    relative = noise / signal if signal > 0 else 0.0
    return {"relative_mse": relative, "sqnr_db": -10 * math.log10(max(relative, 1e-20))}

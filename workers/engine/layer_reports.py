"""Packs each layer as soon as its weights are final, and tells how far they moved."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import ConfigDict, PrivateAttr
from torch import nn

from app.jobs.events import LayerQuantized, Progress
from app.jobs.spec import LayerReport, ModuleReport
from app.jobs.states import Step
from workers.engine.architecture import layer_index
from workers.engine.library_output import hush
from workers.engine.packing import PackedWeight, pack_weight

hush()

from llmcompressor.core import Event, State  # noqa: E402
from llmcompressor.modifiers import Modifier  # noqa: E402


class LayerReporter(Modifier):
    """The last modifier of a recipe: after smoothing and calibration of a layer it packs every
    quantized weight and reports the error of each and of the layer.

    ``names`` maps each quantized module to its name, ``dtypes`` its name to the checkpoint's
    dtype; ``packed`` and the reports are read when the run is over.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    names: dict[nn.Module, str]
    dtypes: Mapping[str, torch.dtype]
    layers: int
    tell: Callable[[Any], None]

    _packed: dict[str, PackedWeight] = PrivateAttr(default_factory=dict)
    _modules: list[ModuleReport] = PrivateAttr(default_factory=list)
    _layers: list[LayerReport] = PrivateAttr(default_factory=list)
    _since: float = PrivateAttr(default_factory=time.perf_counter)

    @property
    def packed(self) -> dict[str, PackedWeight]:
        """Packed weights by module name."""
        return self._packed

    @property
    def module_reports(self) -> list[ModuleReport]:
        """The error of every quantized weight."""
        return self._modules

    @property
    def layer_reports(self) -> list[LayerReport]:
        """The error of every decoder layer that has a quantized weight."""
        return self._layers

    def on_initialize(self, state: State, **kwargs: Any) -> bool:  # noqa: ARG002
        """Nothing to prepare."""
        self._since = time.perf_counter()
        return True

    def on_sequential_epoch_end(
        self,
        state: State,  # noqa: ARG002
        event: Event,  # noqa: ARG002
        modules: list[nn.Module],
        **kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Pack and report the quantized modules of the layer that was just calibrated."""
        done = [(self.names[module], module) for module in modules if module in self.names]
        reports: dict[int, list[tuple[ModuleReport, float, float]]] = {}
        for name, module in done:
            report, noise, signal = self._pack(name, module)
            self._modules.append(report)
            reports.setdefault(report.layer, []).append((report, noise, signal))
        for index, parts in sorted(reports.items()):
            self._tell_layer(index, sum(p[1] for p in parts), sum(p[2] for p in parts))

    @torch.no_grad()
    def _pack(self, name: str, module: nn.Module) -> tuple[ModuleReport, float, float]:
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        packed = pack_weight(weight, module.quantization_scheme, self.dtypes[name])
        self._packed[name] = packed
        exact = weight.detach().double().cpu()
        noise = float((packed.dequantized().double() - exact).square().sum())
        signal = float(exact.square().sum())
        index = layer_index(name)
        report = ModuleReport(
            layer=-1 if index is None else index,
            module=name,
            **error_figures(noise, signal),
        )
        return report, noise, signal

    def _tell_layer(self, index: int, noise: float, signal: float) -> None:
        report = LayerReport(layer=index, **error_figures(noise, signal))
        self._layers.append(report)
        now = time.perf_counter()
        self.tell(LayerQuantized(**report.model_dump(), seconds=now - self._since))
        self._since = now
        done = len(self._layers)
        self.tell(Progress(step=Step.QUANTIZE, done=done, total=self.layers, unit="layers"))


def error_figures(noise: float, signal: float) -> dict[str, float]:
    """Relative mean squared error, noise over signal, and the same in dB (both sums of squares).

    A weight that is zero everywhere is represented exactly and gets 0 and 200 dB.
    """
    relative = noise / signal if signal > 0 else 0.0
    return {"relative_mse": relative, "sqnr_db": -10 * math.log10(max(relative, 1e-20))}

"""Calibration layer by layer, as llmcompressor's sequential pipeline, but resumable.

The model is cut into subgraphs by llmcompressor's own tracing, one a decoder layer. Each is run
twice: once for the modifiers' hooks, once to carry its outputs on. What this pipeline does
besides: it keeps a record of every finished stretch, restores the records an earlier run left and
only carries their outputs on; it measures the error of each layer's output, on held-out rows too;
it stops after the last layer that has something to quantize; and it says how far it is.

Registered as ``calibrant``; what a run needs is given by ``layerwise``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from llmcompressor.core import LifecycleCallbacks, active_session
from llmcompressor.modifiers.utils.hooks import HooksMixin
from llmcompressor.pipelines.registry import CalibrationPipeline
from llmcompressor.utils.helpers import DisableQuantization
from torch import nn

from app.jobs.events import Emit, Event, LayerQuantized, Progress
from app.jobs.spec import LayerReport, ModuleReport
from app.jobs.states import Step
from workers.engine.awq.experts_forward import ExpertsRuns, every_expert, natural_routing
from workers.engine.awq.idle_experts import watched
from workers.engine.awq.smoothing import ScaleLog
from workers.engine.memory import memory_now
from workers.engine.models.architecture import layer_index, layer_name_of
from workers.engine.passes.subgraphs import Stretch, alongside, brought_over, cut
from workers.engine.quantization.layer_reports import LayerReporter, error_figures
from workers.engine.quantization.layer_store import LayerRecord, LayerStore
from workers.engine.rows.batches import PackedBatch, loader_of

OUTPUT_BATCHES = 2
TELL_SECONDS = 1.0


@dataclass
class Layerwise:
    """One run of the pipeline. ``scales`` are those the smoothing applies; ``every_token`` carries
    outputs on with every expert run on every token, as stock does: bit for bit the same. ``runs``
    is how experts run; those whose outputs nothing sees rest while statistics are taken.
    ``tell`` receives the events; ``finished`` is how many records ``store`` has at the start.
    The first of ``held_out`` are carried along, unseen by the modifiers, for the error of each
    layer's output on rows it was not calibrated on."""

    store: LayerStore
    reporter: LayerReporter
    scales: ScaleLog
    runs: ExpertsRuns
    tell: Emit
    every_token: bool
    layers: int
    finished: int = 0
    held_out: Sequence[PackedBatch] = ()
    reports: list[LayerReport] = field(default_factory=list)
    modules: list[ModuleReport] = field(default_factory=list)
    _events: list[Event] = field(default_factory=list)
    _since: float = field(default_factory=time.perf_counter)
    _told: float = 0.0
    _computed: list[float] = field(default_factory=list)

    def note(self, event: Event) -> None:
        """Tell an event that belongs to the record of the layer at work."""
        self._events.append(event)
        self.tell(event)

    def restore(self, number: int, model: nn.Module) -> None:
        """Make the weights what they were after this record, and tell its events once more."""
        record = self.store.load(number)
        self.scales.apply_again(model, record.scales)
        for event in record.events:
            self.tell(event)
        self.reports.extend(record.layers)
        self.modules.extend(record.modules)
        self._since = time.perf_counter()

    def close(self, number: int, output: dict[str, float]) -> None:
        """Record the stretch that was just calibrated, and the error of its ``output``."""
        done = self.reporter.take()
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        for layer, energies in sorted(done.energies.items()):
            report = LayerReport(layer=layer, **error_figures(*energies), **output)
            self.reports.append(report)
            self.note(LayerQuantized(**report.model_dump(), seconds=seconds))
            self._computed.append(seconds)
        if done.energies:
            self.note(memory_now(max(done.energies)))
        reports = self.reports[len(self.reports) - len(done.energies) :]
        self.modules.extend(done.modules)
        events, self._events = self._events, []
        scales = self.scales.take()
        self.store.save(number, LayerRecord(scales, done.packed, reports, done.modules, events))
        self.progress()

    def progress(
        self, layer: int | None = None, batch: int = 0, batches: int = 0, at_once: bool = True
    ) -> None:
        """Tell how far the step is; ``at_once`` or once a second."""
        now = time.monotonic()
        if not at_once and now - self._told < TELL_SECONDS:
            return
        self._told = now
        left = self.layers - len(self.reports)
        mean = sum(self._computed) / len(self._computed) if self._computed else None
        spent = time.perf_counter() - self._since  # on the layer at work
        self.tell(
            Progress(
                step=Step.QUANTIZE,
                done=len(self.reports),
                total=self.layers,
                unit="layers",
                layer=layer,
                batch=batch if layer is not None else None,
                batches=batches if layer is not None else None,
                eta_seconds=None if mean is None else max(0.0, mean * left - spent),
            )
        )


_run: ContextVar[Layerwise] = ContextVar("layerwise run")


@contextlib.contextmanager
def layerwise(run: Layerwise) -> Iterator[None]:
    """Give the pipeline its run."""
    token = _run.set(run)
    try:
        yield
    finally:
        _run.reset(token)


@CalibrationPipeline.register("calibrant")
class LayerwisePipeline(CalibrationPipeline):
    """The pipeline, as ``oneshot(pipeline="calibrant")`` finds it."""

    @staticmethod
    def __call__(model: Any, dataloader: Any, dataset_args: Any) -> None:
        """Calibrate ``model`` on the batches of ``dataloader``."""
        run = _run.get()
        with brought_over(model), cut(model, dataloader, dataset_args) as stretches:
            stretches = _with_work(stretches)
            beside = alongside(stretches, loader_of(run.held_out[:OUTPUT_BATCHES]))
            LifecycleCallbacks.calibration_start()
            session = active_session()
            session.state.loss_masks, session.state.sequential_prefetch = None, False
            with DisableQuantization(model):
                for number, stretch in enumerate(stretches):
                    with stretch.at_hand():
                        if number < run.finished:
                            run.restore(number, model)
                        else:
                            _calibrate(run, number, stretch, beside[number])
                        if number < len(stretches) - 1:
                            _carry_on(run, stretch)
                            _carry_on(run, beside[number])
        LifecycleCallbacks.calibration_end()


def _with_work(stretches: list[Stretch]) -> list[Stretch]:
    """The stretches up to the last one with a quantized module."""
    has_work = [
        any(hasattr(module, "quantization_scheme") for module in each.modules) for each in stretches
    ]
    return stretches[: len(has_work) - has_work[::-1].index(True)]


def _calibrate(run: Layerwise, number: int, stretch: Stretch, held_out: Stretch) -> None:
    session = active_session()
    name = _layer_of(run, stretch.modules)
    layer = layer_index(name) if name is not None else None
    with contextlib.ExitStack() as stack:
        for batch, inputs in stretch.inputs():
            session.state.current_batch_idx = batch
            if batch == 0:
                with watched(stretch.modules) as unseen:
                    stretch.forward(inputs)
                stack.enter_context(run.runs.rest(unseen))
            else:
                stretch.forward(inputs)
            if layer is not None:
                at_end = batch + 1 == stretch.batches
                run.progress(layer, batch + 1, stretch.batches, at_once=at_end)
    LifecycleCallbacks.sequential_epoch_end(stretch.modules)
    errors: dict[str, float] = {}
    if name is not None:
        module = stretch.model.get_submodule(name)
        beside = {"output": stretch, "held_out": held_out}
        errors = _output_errors(run.reporter, beside, module)
    run.close(number, errors)


def _layer_of(run: Layerwise, modules: Iterable[nn.Module]) -> str | None:
    """The name of the decoder layer that has quantized modules among these."""
    named = (run.reporter.names.get(module) for module in modules)
    return next((layer_name_of(name) for name in named if name is not None), None)


def _carry_on(run: Layerwise, stretch: Stretch) -> None:
    """Replace the stretch's inputs by its outputs."""
    with HooksMixin.disable_hooks(), every_expert() if run.every_token else natural_routing():
        for batch, inputs in stretch.inputs():
            stretch.carry(batch, stretch.forward(inputs))


def _output_errors(
    reporter: LayerReporter, stretches: dict[str, Stretch], layer: nn.Module
) -> dict[str, float]:
    """The error of the decoder layer's outputs on each stretch's first batches, weights as they
    were packed against weights as they are, from the same inputs, as figures named after the
    stretch; none without a batch."""
    with HooksMixin.disable_hooks(), natural_routing():
        exact = {kind: _outputs_of(layer, stretch) for kind, stretch in stretches.items()}
        with reporter.as_packed():
            rounded = {kind: _outputs_of(layer, stretch) for kind, stretch in stretches.items()}
    figures: dict[str, float] = {}
    for kind in stretches:
        pairs = list(zip(exact[kind], rounded[kind], strict=True))
        noise = sum(float((two - one).double().square().sum()) for one, two in pairs)
        signal = sum(float(one.double().square().sum()) for one, _ in pairs)
        if signal > 0:
            figures |= {f"{kind}_{key}": x for key, x in error_figures(noise, signal).items()}
    return figures


def _outputs_of(layer: nn.Module, stretch: Stretch) -> list[torch.Tensor]:
    """The outputs of a decoder layer on the first batches of a stretch."""
    found: list[torch.Tensor] = []

    def take(_: nn.Module, __: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    handle = layer.register_forward_hook(take)
    try:
        for _, inputs in stretch.inputs(OUTPUT_BATCHES):
            stretch.forward(inputs)
    finally:
        handle.remove()
    return found

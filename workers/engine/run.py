"""A job under way: what is known of it so far, and the model it is about."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from transformers import PreTrainedModel

from app.errors import CalibrantError
from app.jobs.events import Emit, Notice, Progress
from app.jobs.spec import JobResult, JobSpec
from app.jobs.states import Step
from app.sources.pinning import Fetching, TellFetching
from workers.engine.device import compute_device, compute_dtype
from workers.engine.models.loading import load_model, refuse_not_finite
from workers.engine.models.meta_model import meta_model
from workers.engine.models.resting import load_resting
from workers.engine.passes.observation import Observed
from workers.engine.preflight.resources import must_rest_on_disk, resting_device, weights_of
from workers.engine.quantization.quantize import Quantized
from workers.engine.rows.calibration_rows import CalibrationRows

T = TypeVar("T")


@dataclass
class Run:
    """A job under way: its spec, where its events go, its result so far, and what later steps
    need of earlier ones."""

    spec: JobSpec
    emit: Emit
    result: JobResult = field(default_factory=JobResult)
    rows: CalibrationRows | None = None
    held_out: CalibrationRows | None = None
    original: Observed | None = None
    model: PreTrainedModel | None = None
    quantized: Quantized | None = None

    @property
    def destination(self) -> Path:
        """Where the checkpoint goes: the spec's place, or ``checkpoint`` in the job's own."""
        return self.spec.checkpoint or self.spec.directory / "checkpoint"

    def progress(self, step: Step, unit: str) -> Callable[[int, int], None]:
        """A callback that emits how far ``step`` is."""

        def tell(done: int, total: int) -> None:
            self.emit(Progress(step=step, done=done, total=total, unit=unit))

        return tell

    def fetching(self, step: Step) -> TellFetching:
        """A callback that emits which source ``step`` fetches."""

        def tell(far: Fetching) -> None:
            self.emit(Progress(step=step, unit="sources", **asdict(far)))

        return tell

    def notice(self, message: str, step: Step, *, warning: bool = False) -> None:
        """Emit a sentence for the person."""
        self.emit(Notice(step=step, level="warning" if warning else "info", message=message))

    def loaded_model(self) -> PreTrainedModel:
        """The source model on the compute device; loaded once."""
        if self.model is None:
            self.model = load_for_computing(self.spec.model, self.spec.directory)
        return self.model


def load_for_computing(directory: Path, scratch: Path | None = None) -> PreTrainedModel:
    """The source model in the dtype scales are searched in, on the compute device, or in RAM where
    an accelerator is too small to hold it, or in a file in ``scratch`` (default: where temporary
    files go), and then linearized, where RAM is too small (``workers.engine.passes.forward``)."""
    shapes = meta_model(directory)
    device = compute_device()
    dtype = compute_dtype(device, shapes.dtype)
    if must_rest_on_disk(*weights_of(shapes, dtype.itemsize)):
        model = load_resting(directory, dtype, scratch or Path(tempfile.gettempdir()))
    else:
        model = load_model(directory, dtype, resting_device(shapes, dtype, device))
    refuse_not_finite(model, directory)
    return model


def needed(value: T | None) -> T:
    """What an earlier step left behind. Raises CalibrantError when it is not there."""
    if value is None:
        raise CalibrantError("A step of this job needs what an earlier one was to leave behind.")
    return value

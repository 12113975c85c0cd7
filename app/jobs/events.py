"""The event stream of a job: typed, versioned, one JSON document a line.

The engine emits these; the command line prints them, the supervisor stores them, the pages read
them. A reader ignores types it does not know, so a new type does not need a new version.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from app.jobs.states import Step

VERSION: Literal[1] = 1


def _now() -> datetime:
    return datetime.now(UTC)


class _Event(BaseModel):
    model_config = ConfigDict(extra="ignore")

    version: Literal[1] = VERSION
    at: datetime = Field(default_factory=_now)


class StepStarted(_Event):
    """A step begins."""

    type: Literal["step_started"] = "step_started"
    step: Step


class Progress(_Event):
    """How far a step is: ``done`` of ``total`` in ``unit``. While sources are fetched, ``source``
    is the one at work and ``read`` how many of its rows are. While layers are quantized, ``layer``
    is the one at work and ``batch`` of ``batches`` how far its calibration pass is;
    ``eta_seconds`` estimates what is left of the step from the layers done in this run."""

    type: Literal["progress"] = "progress"
    step: Step
    done: int
    total: int
    unit: str
    source: str | None = None
    read: int | None = None
    layer: int | None = None
    batch: int | None = None
    batches: int | None = None
    eta_seconds: float | None = None


class MappingSearched(_Event):
    """AWQ's loss of one smoothing mapping before and after the scale search (mean squared
    difference of the parent's output, weights unscaled and best scaled)."""

    type: Literal["mapping"] = "mapping"
    step: Step = Step.QUANTIZE
    layer: int
    smooth_layer: str
    balance_layers: int
    initial_error: float
    best_error: float


class LayerQuantized(_Event):
    """The error of one decoder layer: of its weights, over all that are quantized, and of its
    output on the first calibration and held-out batches (None where it was not measured)."""

    type: Literal["layer"] = "layer"
    step: Step = Step.QUANTIZE
    layer: int
    relative_mse: float
    sqnr_db: float
    output_relative_mse: float | None = None
    output_sqnr_db: float | None = None
    held_out_relative_mse: float | None = None
    held_out_sqnr_db: float | None = None
    seconds: float


class RoutedTokens(_Event):
    """How many calibration tokens the router sent to each expert of one layer."""

    type: Literal["routed"] = "routed"
    step: Step = Step.QUANTIZE
    layer: int
    tokens: list[int]


class Memory(_Event):
    """What the process holds and has held at most, and the accelerator likewise (0 without
    one), in bytes."""

    type: Literal["memory"] = "memory"
    step: Step = Step.QUANTIZE
    layer: int | None = None
    resident_bytes: int
    resident_peak_bytes: int
    device_bytes: int = 0
    device_peak_bytes: int = 0


class Notice(_Event):
    """A sentence for the person: information, or a warning."""

    type: Literal["notice"] = "notice"
    step: Step | None = None
    level: Literal["info", "warning"] = "info"
    message: str


class StepFinished(_Event):
    """A step is done; ``figures`` are the numbers worth showing beside it."""

    type: Literal["step_finished"] = "step_finished"
    step: Step
    seconds: float
    figures: dict[str, Any] = {}


class Failed(_Event):
    """The job cannot go on. ``refused`` when the input was at fault, not the program."""

    type: Literal["failed"] = "failed"
    step: Step | None = None
    sentence: str
    refused: bool = False


class Finished(_Event):
    """The job is done; ``result`` is the job's result as its kind defines it."""

    type: Literal["finished"] = "finished"
    result: dict[str, Any]


Event = Annotated[
    StepStarted
    | Progress
    | MappingSearched
    | LayerQuantized
    | RoutedTokens
    | Memory
    | Notice
    | StepFinished
    | Failed
    | Finished,
    Field(discriminator="type"),
]

Emit = Callable[[Event], None]

_ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)


def parse(line: str | bytes) -> Event:
    """One line of the stream as an event.

    Raises ``pydantic.ValidationError`` when the line is not an event of this version.
    """
    return _ADAPTER.validate_json(line)

"""A job from its spec to its result, step by step. Needs no broker and no database."""

from __future__ import annotations

import time

from torch import OutOfMemoryError

from app.artifacts import write_model
from app.errors import OutOfMemory
from app.jobs import files
from app.jobs.events import Emit, StepFinished, StepStarted
from app.jobs.spec import JobResult, JobSpec
from workers.engine.device import set_threads
from workers.engine.quantization.resuming import drop_layers, threads_of
from workers.engine.run import Run
from workers.engine.steps import STEP_FUNCTIONS


def run(spec: JobSpec, emit: Emit) -> JobResult:
    """Take the steps of the job's kind in order and return its result, also written as
    ``result.json`` in the job's directory.

    Raises CalibrantError with a sentence for a person when the job cannot go on.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    set_threads(threads_of(spec))
    spec.directory.mkdir(parents=True, exist_ok=True)
    job = Run(spec, emit)
    for step in spec.steps:
        since = time.perf_counter()
        emit(StepStarted(step=step))
        try:
            figures = STEP_FUNCTIONS[step](job)
        except OutOfMemoryError as error:
            raise OutOfMemory(
                f"The accelerator's memory is full in the step {step}: end what else runs on it, "
                f"or use one with more memory. {error}"
            ) from error
        emit(StepFinished(step=step, seconds=time.perf_counter() - since, figures=figures))
    job.result.seconds = time.perf_counter() - wall
    job.result.cpu_seconds = time.process_time() - cpu
    write_model(spec.directory / files.RESULT, job.result)
    drop_layers(spec)
    return job.result

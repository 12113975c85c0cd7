"""The demo: the main job on the bundled corpus and model, its progress in the terminal."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from app.base_models.service import DEMO_MODEL, add_model
from app.calibration.service import save_set
from app.calibration.starter import software_engineer
from app.console import complain
from app.database import session_for
from app.jobs import service
from app.jobs.models import Job, JobEvent
from app.jobs.spec import JobResult
from app.jobs.states import FINAL, STEPS, JobKind, JobState
from app.jobs.views import STEP_LABELS
from app.processes import Installation
from app.recipes.schema import DEFAULT_PRESET
from app.settings import Settings

POLL_SECONDS = 0.3


@dataclass(frozen=True)
class Outcome:
    """How the demo's job ended, and the lines that say so."""

    succeeded: bool
    lines: list[str]


def run(settings: Settings, running: Installation, model: Path = DEMO_MODEL) -> Outcome:
    """Submit the demo's job, show its progress on stderr, and say how it ended."""
    with session_for(settings) as session:
        record = add_model(session, model)
        saved = save_set(session, software_engineer(settings.corpus_packs))
        job = service.compose_job(
            session,
            settings,
            kind=JobKind.QUANTIZE,
            set_id=saved.id,
            model_id=record.id,
            recipe=DEFAULT_PRESET,
        )
        service.submit(session, settings, job)
    job = _watch(settings, running, job.id)
    return Outcome(job.state == JobState.SUCCEEDED, lines(running.address, job))


def _watch(settings: Settings, running: Installation, job_id: str) -> Job:
    columns = (
        TextColumn("{task.description:<27}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[note]:<34}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars = {
            step.value: progress.add_task(STEP_LABELS[step], start=False, total=None, note="")
            for step in STEPS[JobKind.QUANTIZE]
        }
        seen = 0
        while True:
            for sentence in running.mend():
                complain(sentence)
            with session_for(settings) as session:
                job = service.get_job(session, job_id)
                events = service.list_events(session, job_id, after=seen)
            for event in events:
                seen = event.number
                _show_event(progress, bars, event)
            _show_progress(progress, bars, job)
            if JobState(job.state) in FINAL:
                return job
            time.sleep(POLL_SECONDS)


def _show_event(progress: Progress, bars: dict[str, TaskID], event: JobEvent) -> None:
    if event.step is None:
        return
    if event.type == "step_started":
        progress.start_task(bars[event.step])
    if event.type == "step_finished":
        note = f"{event.data['seconds']:.1f} s"
        progress.update(bars[event.step], total=1, completed=1, note=note)
        progress.stop_task(bars[event.step])


def _show_progress(progress: Progress, bars: dict[str, TaskID], job: Job) -> None:
    if job.step is None or job.progress_total is None or progress.tasks[bars[job.step]].finished:
        return
    note = f"{job.progress_done:,} of {job.progress_total:,} {job.progress_unit}"
    progress.update(
        bars[job.step], total=job.progress_total, completed=job.progress_done, note=note
    )


def lines(address: str, job: Job) -> list[str]:
    """The addresses and figures of a job that ended, or why it has none."""
    here = f"{address}/jobs/{job.id}"
    if job.result is None:
        return [f"The job is {job.state}: {job.failure}", f"What it wrote     {here}"]
    result = JobResult.model_validate(job.result)
    said = [
        f"Coverage heatmap  {here}/coverage",
        f"Error by layer    {here}/errors",
        f"Download          {address}/checkpoints/{job.id}",
        f"Calibration set   {result.set_rows:,} rows, {result.set_tokens:,} tokens",
        f"Experts reached   {result.experts_reached:,} of {result.experts_total:,}",
    ]
    if (evaluation := result.evaluation) is not None:
        said.append(
            f"Mean KL           {evaluation.kl_mean:.5f} nats a token on {evaluation.rows} "
            f"held-out rows (95 % {evaluation.kl_low:.5f} to {evaluation.kl_high:.5f})"
        )
    if result.bytes_before and result.bytes_after:
        before, after = result.bytes_before / 1e6, result.bytes_after / 1e6
        said.append(f"Size              {before:.2f} MB before, {after:.2f} MB after")
    if (verification := result.verification) is not None:
        verdict = "verified" if verification.ok else f"{len(verification.problems)} problems"
        said.append(f"Checkpoint        {verification.tensors:,} tensors, {verdict}")
    return said

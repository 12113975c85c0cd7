"""How far a command of the engine is, for a person at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from app.console import complain
from app.jobs.events import Event, Notice, StepFinished, StepStarted
from app.jobs.events import Progress as ProgressEvent


@contextmanager
def _bars() -> Iterator[Progress]:
    """Progress on stderr, drawn only on a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield progress


@contextmanager
def bar(name: str) -> Iterator[Callable[[int, int], None]]:
    with _bars() as progress:
        bar = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


@contextmanager
def shown_events() -> Iterator[Callable[[Event], None]]:
    """Events of a job for a person: a bar a step on a terminal, a line a step elsewhere."""
    with _bars() as progress:
        bars: dict[str, TaskID] = {}

        def show(event: Event) -> None:
            if isinstance(event, StepStarted):
                bars[event.step] = progress.add_task(event.step.value, total=None)
            elif isinstance(event, ProgressEvent):
                progress.update(bars[event.step], completed=event.done, total=event.total)
            elif isinstance(event, StepFinished):
                _show_finished(progress, bars[event.step], event)
            elif isinstance(event, Notice):
                # As it is: a bracket is no markup, and a line is broken by whoever shows it.
                progress.console.print(event.message, style="dim", markup=False, soft_wrap=True)

        yield show


def _show_finished(progress: Progress, bar: TaskID, event: StepFinished) -> None:
    progress.update(bar, total=1, completed=1)
    if not sys.stderr.isatty():
        complain(f"{event.step.value}: done in {event.seconds:,.1f} s")

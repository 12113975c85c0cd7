"""How a command runs a job in its own process, without a server or a queue."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from app.artifacts import require_writable
from app.checkpoints.manifest import MANIFEST
from app.console import complain, told
from app.errors import CalibrantError, Conflict, ResumeRefused
from app.jobs.events import Event
from app.jobs.spec import JobResult, JobSpec
from app.jobs.states import JobKind
from workers.bars import shown_events


def spec_of(
    kind: JobKind, directory: Path, model: Path, rows: Path, threads: int | None
) -> JobSpec:
    """The job a command runs: it reads a model and rows where they are, and keeps what it makes in
    ``directory``."""
    return JobSpec(
        job_id="local",
        kind=kind,
        directory=directory,
        sets_dir=directory,
        model=model.resolve(),
        calibration=rows.resolve(),
        threads=threads,
    )


def run_here(spec: JobSpec, events: Path | None = None) -> JobResult:
    """Run a job here, its events shown on stderr and, where ``events`` is given, kept in it."""
    from workers.engine.main_job import run

    with shown_events() as show:
        if events is None:
            return run(spec, show)
        with events.open("a" if spec.resume == "required" else "w", encoding="utf-8") as log:

            def emit(event: Event) -> None:
                log.write(event.model_dump_json() + "\n")
                log.flush()
                show(event)

            return run(spec, emit)


@contextmanager
def refusals() -> Iterator[None]:
    """A CalibrantError becomes its sentence on stderr and its exit code, and so does a file or
    directory that cannot be read or written."""
    try:
        yield
    except CalibrantError as error:
        complain(error.sentence)
        raise typer.Exit(error.exit_code) from error
    except OSError as error:
        known = told(error)
        if known is None:
            raise
        complain(known.sentence)
        raise typer.Exit(known.exit_code) from error


@contextmanager
def working_directory(out: Path | None) -> Iterator[Path]:
    """``out``, made if it is not there, or a directory that is gone afterwards. Raises FileUnusable
    where nothing can be written into it."""
    if out is not None:
        require_writable(out)
        yield out.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="calibrant-") as directory:
        yield Path(directory)


def events_beside(out: Path) -> Path:
    """The file that keeps what a run towards ``out`` says."""
    place = out.resolve()
    return place.parent / f"{place.name}.events.jsonl"


@contextmanager
def kept_beside(out: Path, resume: bool) -> Iterator[Path]:
    """The directory of a run's own files, on the disk the checkpoint goes to. It stays where the
    run ends early after it finished a layer, which is said; one that ends before that leaves
    nothing.

    Raises Conflict while another run is at work in it, when a stopped run left one and ``resume``
    was not asked for, or when it was and the checkpoint is whole already; CheckpointRefused when
    something else is at ``out``.
    """
    from workers.engine.checkpoints.export import refuse_taken_destination

    place = out.resolve()
    directory = place.parent / f".{place.name}.calibrant"
    if resume and not _has_layers(directory) and (out / MANIFEST).is_file():
        raise Conflict(
            f"{out} is whole already, so there is nothing to go on with: calibrant verify checks "
            "it against its source."
        )
    if not resume:
        refuse_taken_destination(out)
    directory.mkdir(parents=True, exist_ok=True)
    with _sole_run(directory, out):
        if not resume and _has_layers(directory):
            raise Conflict(
                f"A stopped run towards {out} left finished layers in {directory}: go on with "
                "--resume, or remove that directory to start again."
            )
        try:
            yield directory
        except BaseException as error:
            if _has_layers(directory) and not isinstance(error, ResumeRefused):
                complain(f"Finished layers are kept in {directory}: go on with --resume.")
            raise
        finally:
            if not _has_layers(directory):
                shutil.rmtree(directory)
                if not (out / MANIFEST).is_file():
                    events_beside(out).unlink(missing_ok=True)


@contextmanager
def _sole_run(directory: Path, out: Path) -> Iterator[None]:
    """Hold a run's directory until the run ends, however it ends. Raises Conflict when another
    process holds it."""
    held = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(
                f"Another run towards {out} is at work: wait for it, or give another directory."
            ) from error
        yield
    finally:
        os.close(held)


def _has_layers(directory: Path) -> bool:
    return any((directory / "layers").glob("layer-*.json"))

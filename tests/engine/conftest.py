"""What the engine's tests share: tiny models on disk, rows, and one finished job."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from transformers import PreTrainedModel

from app.jobs.events import Event
from app.jobs.spec import JobResult, JobSpec
from app.jobs.states import JobKind
from app.recipes.schema import PRESETS
from tests.engine import tiny_models
from workers.engine.main_job import run
from workers.engine.models.loading import linearize, load_model

torch.set_num_threads(1)

DiskOf = Callable[[str], Path]


@dataclass(frozen=True)
class Job:
    """A job that ran: its spec, its result, and all it said."""

    spec: JobSpec
    result: JobResult
    events: list[Event] = field(default_factory=list)


def run_job(spec: JobSpec) -> Job:
    """Run a job in this process and keep its events."""
    events: list[Event] = []
    return Job(spec, run(spec, events.append), events)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="session")
def rows_file(folder: Path) -> Path:
    return tiny_models.write_jsonl(folder / "rows.jsonl", rows=16, length=60)


@pytest.fixture(scope="session")
def held_out_file(folder: Path) -> Path:
    return tiny_models.write_jsonl(folder / "held-out.jsonl", rows=8, length=60, seed=1)


@pytest.fixture(scope="session")
def source(folder: Path) -> Path:
    """A tiny MiniMax-M2 in bfloat16, as its publisher would leave it."""
    model = tiny_models.tiny_model(tiny_models.minimax_m2(), torch.bfloat16)
    return tiny_models.save(model, folder / "minimax-m2")


@pytest.fixture(scope="session")
def job(folder: Path, source: Path, rows_file: Path, held_out_file: Path) -> Job:
    """The main job on it, finished."""
    return run_job(
        JobSpec(
            job_id="tiny",
            kind=JobKind.QUANTIZE,
            directory=folder / "job",
            sets_dir=folder / "sets",
            model=source,
            calibration=rows_file,
            held_out=held_out_file,
            recipe=PRESETS["experts-w4a16-g32"],
            threads=1,
        )
    )


@pytest.fixture
def disk_of(tmp_path: Path) -> Iterator[DiskOf]:
    """Makes one real file system of the size it is given, where this process may mount one."""
    disk = tmp_path / "disk"

    def mount(size: str) -> Path:
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("this process may not mount a file system")
        return disk

    yield mount
    if disk.is_mount():
        subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture(scope="session")
def saved(folder: Path) -> Callable[[str], Path]:
    """The directory of a tiny float32 model by its architecture's name, saved once."""

    def directory_of(name: str) -> Path:
        directory = folder / "float32" / name
        if not directory.exists():
            make = {**tiny_models.MOE, **tiny_models.DENSE, **tiny_models.FUSED}[name]
            tiny_models.save(tiny_models.tiny_model(make()), directory)
        return directory

    return directory_of


@pytest.fixture(scope="session")
def linear_model(saved: Callable[[str], Path]) -> Callable[[str], PreTrainedModel]:
    """A tiny float32 model by its architecture's name, loaded anew and linearized."""
    return lambda name: linearize(load_model(saved(name)))

"""What a job's directory holds of its quality."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError
from sqlmodel import Session

from app.errors import Refused
from app.jobs import files, service
from app.jobs.spec import Evaluation, LayerReport, ModuleReport
from app.jobs.views import reported_layers
from app.settings import Settings

T = TypeVar("T")
LAYERS = TypeAdapter(list[LayerReport])
MODULES = TypeAdapter(list[ModuleReport])
EVALUATION = TypeAdapter(Evaluation)


class ArtifactRefused(Refused):
    """A file of a job that is not what the job wrote."""


def layer_reports(session: Session, settings: Settings, job_id: str) -> list[LayerReport]:
    """The error of every layer, or of those a running job has told of so far. Raises NotFound."""
    service.get_job(session, job_id)
    written = _read(settings.jobs_dir / job_id / files.LAYERS, LAYERS)
    if written is not None:
        return written
    return reported_layers(service.list_events(session, job_id))


def module_reports(settings: Settings, job_id: str) -> list[ModuleReport]:
    """The error of every quantized module; empty before the job has measured it."""
    return _read(settings.jobs_dir / job_id / files.MODULES, MODULES) or []


def evaluation_of_job(settings: Settings, job_id: str) -> Evaluation | None:
    """What was measured on held-out rows; None before the job has measured it."""
    return evaluation_in(settings.jobs_dir / job_id)


def evaluation_in(directory: Path) -> Evaluation | None:
    """What an evaluation wrote into a directory; None where it has written nothing."""
    return _read(directory / files.EVALUATION, EVALUATION)


def _read(path: Path, adapter: TypeAdapter[T]) -> T | None:
    """An artifact of a job, None when its step has not written it. Raises ArtifactRefused."""
    if not path.is_file():
        return None
    try:
        return adapter.validate_json(path.read_bytes())
    except ValidationError as error:
        what = error.errors()[0]["msg"]
        raise ArtifactRefused(f"{path} is damaged ({what}): run its job again.") from error

"""What can be done with checkpoints: list, look at, and find the file to send."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from sqlalchemy import func
from sqlmodel import Session, col, select

from app.checkpoints.models import Checkpoint
from app.errors import CheckpointRefused, NotFound
from app.jobs.models import Job
from app.jobs.spec import CheckpointFile, Evaluation, JobResult


def record_checkpoint(session: Session, job: Job, result: JobResult) -> Checkpoint | None:
    """Keep what a job exported; None when it exported nothing. The caller commits."""
    if result.checkpoint is None or result.verification is None:
        return None
    checkpoint = Checkpoint(
        id=job.id,
        job_id=job.id,
        name=job.name,
        path=str(result.checkpoint),
        bytes_before=result.bytes_before or 0,
        bytes_after=result.bytes_after or 0,
        files=[file.model_dump(mode="json") for file in result.files],
        verification=result.verification.model_dump(mode="json"),
    )
    session.add(checkpoint)
    return checkpoint


class Listed(NamedTuple):
    """A checkpoint of a list, the recipe of its job, and what was measured of it on held-out rows,
    None where nothing was."""

    checkpoint: Checkpoint
    recipe: str | None
    evaluation: Evaluation | None


def list_checkpoints(
    session: Session, *, limit: int | None = None, offset: int = 0
) -> list[Listed]:
    """The checkpoints, the newest first; all of them without a ``limit``."""
    statement = (
        select(Checkpoint, Job.recipe, col(Job.result)["evaluation"])
        .join(Job, col(Job.id) == Checkpoint.job_id)
        .order_by(col(Checkpoint.created_at).desc(), col(Checkpoint.id))
    )
    found = session.exec(statement.limit(limit).offset(offset)).all()
    return [
        Listed(checkpoint, recipe, Evaluation.model_validate(part) if part else None)
        for checkpoint, recipe, part in found
    ]


def count_checkpoints(session: Session) -> int:
    """How many checkpoints there are."""
    return session.exec(select(func.count()).select_from(Checkpoint)).one()


def get_checkpoint(session: Session, checkpoint_id: str) -> Checkpoint:
    """A checkpoint by its id. Raises NotFound."""
    checkpoint = session.get(Checkpoint, checkpoint_id)
    if checkpoint is None:
        raise NotFound(f"There is no checkpoint {checkpoint_id!r}.")
    return checkpoint


def file_of(checkpoint: Checkpoint, name: str) -> tuple[Path, CheckpointFile]:
    """Where a file of a checkpoint lies, and what is known of it.

    Only a name that the checkpoint lists is looked for, so no name leads out of its directory.
    Raises NotFound for another name, CheckpointRefused when the file is gone or its size changed.
    """
    for document in checkpoint.files:
        file = CheckpointFile.model_validate(document)
        if file.name != name:
            continue
        path = Path(checkpoint.path) / file.name
        if not path.is_file() or path.stat().st_size != file.size_bytes:
            raise CheckpointRefused(
                f"{path} is gone or was changed after the export: verify the checkpoint, "
                "or run its job again."
            )
        return path, file
    raise NotFound(f"Checkpoint {checkpoint.id} has no file {name!r}.")

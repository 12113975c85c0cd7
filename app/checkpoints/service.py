"""What can be done with checkpoints: list, look at, and find the file to send."""

from __future__ import annotations

from pathlib import Path

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


def list_checkpoints(session: Session) -> list[Checkpoint]:
    """Every checkpoint, the newest first."""
    return list(session.exec(select(Checkpoint).order_by(col(Checkpoint.created_at).desc())))


def evaluations(session: Session) -> dict[str, Evaluation]:
    """What was measured of every checkpoint on held-out rows, by its job; those that were not
    measured are left out."""
    measured = col(Job.result)["evaluation"]
    statement = select(Checkpoint.job_id, measured).join(Job, col(Job.id) == Checkpoint.job_id)
    found = session.exec(statement).all()
    return {job: Evaluation.model_validate(part) for job, part in found if part}


def recipes(session: Session) -> dict[str, str | None]:
    """The recipe of every checkpoint, by its job."""
    statement = select(Checkpoint.job_id, Job.recipe).join(Job, col(Job.id) == Checkpoint.job_id)
    return dict(session.exec(statement).all())


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

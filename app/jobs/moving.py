"""A data directory that was moved, or restored elsewhere: its jobs and checkpoints follow it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlmodel import Session, select

from app.checkpoints.models import Checkpoint
from app.jobs.models import Job
from app.settings import Settings


def follow_data_dir(session: Session, settings: Settings) -> int:
    """Name the new place wherever a job names the old one, and how many jobs did.

    A job follows when its directory is no longer where it says and is where this installation
    keeps jobs. A model or an output that lies outside the data directory stays as it is.
    """
    new = settings.data_dir.resolve()
    followed = 0
    for job in session.exec(select(Job)).all():
        said = Path(str(job.spec["directory"]))
        old = said.parent.parent
        if old == new or said.exists() or not (settings.jobs_dir / job.id).is_dir():
            continue
        job.spec, job.result = moved(job.spec, old, new), moved(job.result, old, new)
        session.add(job)
        if (checkpoint := session.get(Checkpoint, job.id)) is not None:
            checkpoint.path = moved(checkpoint.path, old, new)
            session.add(checkpoint)
        followed += 1
    session.commit()
    return followed


def moved(document: Any, old: Path, new: Path) -> Any:
    """A document with every path under ``old`` under ``new``."""
    if isinstance(document, dict):
        return {key: moved(value, old, new) for key, value in document.items()}
    if isinstance(document, list):
        return [moved(value, old, new) for value in document]
    if isinstance(document, str) and document.startswith(f"{old}/"):
        return f"{new}{document[len(str(old)) :]}"
    return document

"""Deleting a saved set and what was built from it; a set that a kept job used is kept.

A set without builds is a set like any other, so the builds go before the row: whoever is stopped in
between has lost what the next job builds again, to the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import update
from sqlmodel import Session, col, select

from app.artifacts import bytes_freed, remove_directory
from app.calibration import service
from app.calibration.built_set import identities
from app.calibration.held_out import held_out_name, is_held_out_of
from app.calibration.models import CalibrationSet
from app.calibration.spec import SetSpec
from app.deletions import Deleted, Deletion, kept_by_jobs
from app.errors import Conflict
from app.jobs.models import Job
from app.settings import Settings

# Inside the directory of sets, one level deeper than a set is looked for.
TRASH = ".deleting"


def deletion_of(session: Session, settings: Settings, saved: CalibrationSet) -> Deletion:
    """What deleting a set would mean now. Raises Refused for a set that cannot be read."""
    return Deletion(
        freed_bytes=bytes_freed(_builds(session, settings, service.spec_of(saved), saved.id)),
        obstacle=_obstacle(session, saved),
    )


def delete(session: Session, settings: Settings, set_id: str) -> Deleted:
    """Take a saved set away for good, with what was built from it and from its held-out sibling.

    A build that another set or job has too stays. Sets whose rows were chosen from this one hold
    those rows' ids themselves. The id may also be that of a build whose composition is not saved, a
    file's. Raises NotFound, and Conflict where a kept job used the set or the build is of a set.
    """
    if (build := _build_called(settings, set_id)) is not None:
        return _delete_build(session, *build)
    service.get_set(session, set_id)
    # Written first, so that on SQLite nobody starts a job between the look and the deletion; on
    # PostgreSQL the job's reference to the set refuses one of the two.
    same = update(CalibrationSet).where(col(CalibrationSet.id) == set_id)
    session.connection().execute(same.values(name=CalibrationSet.name))
    session.expire_all()
    saved = service.get_set(session, set_id)
    if sentence := _obstacle(session, saved):
        session.rollback()
        raise Conflict(sentence)
    builds = list(_builds(session, settings, service.spec_of(saved), set_id))
    freed = bytes_freed(builds)
    for directory in builds:
        _discard(directory)
    session.delete(saved)
    session.commit()
    return Deleted(id=set_id, freed_bytes=freed)


def finish_deletions(settings: Settings) -> list[str]:
    """Remove the builds whose deletion was stopped half-way, and give their ids."""
    found = sorted((settings.sets_dir / TRASH).glob("*"))
    for directory in found:
        remove_directory(directory)
    return [directory.name for directory in found]


def _build_called(settings: Settings, name: str) -> tuple[Path, dict[str, Any]] | None:
    found = identities(settings.sets_dir)
    return next((each for each in found if each[0].name == name), None)


def _delete_build(session: Session, directory: Path, identity: dict[str, Any]) -> Deleted:
    built: dict[str, Any] = identity.get("spec", {})
    for saved in service.list_sets(session):
        if saved.name != built.get("name") and held_out_name(saved.name) != built.get("name"):
            continue
        own = service.spec_of(saved).model_dump(mode="json")
        if built == own or is_held_out_of(built, own):
            raise Conflict(
                f"{directory.name} was built from the set {saved.id} ({saved.name!r}), and goes "
                f"with it: calibrant sets delete {saved.id}"
            )
    freed = bytes_freed([directory])
    _discard(directory)
    return Deleted(id=directory.name, freed_bytes=freed)


def _discard(directory: Path) -> None:
    """Remove a build, which is there whole until it is not there at all."""
    trash = directory.parent / TRASH / directory.name
    remove_directory(trash)
    trash.parent.mkdir(exist_ok=True)
    directory.rename(trash)
    remove_directory(trash)


def _obstacle(session: Session, saved: CalibrationSet) -> str | None:
    users = select(Job.id).where(Job.set_id == saved.id).order_by(col(Job.created_at).desc())
    return kept_by_jobs(f"The set {saved.name!r}", session.exec(users).all())


def _builds(session: Session, settings: Settings, spec: SetSpec, set_id: str) -> Iterator[Path]:
    """What was built of a set and of its held-out sibling, and of nothing that is kept."""
    own, kept = spec.model_dump(mode="json"), _kept(session, spec, set_id)
    for directory, identity in identities(settings.sets_dir):
        built: dict[str, Any] = identity.get("spec", {})
        if (built == own or is_held_out_of(built, own)) and built not in kept:
            yield directory


def _kept(session: Session, spec: SetSpec, set_id: str) -> list[dict[str, Any]]:
    """The compositions of this name, and of its held-out sibling's, that others need."""
    names = (spec.name, held_out_name(spec.name))
    same_name = col(CalibrationSet.name).in_(names), CalibrationSet.id != set_id
    held_out = col(Job.spec)["held_out"]
    judged_by = select(held_out).where(
        held_out["name"].as_string() == names[1], Job.set_id != set_id
    )
    sets = session.exec(select(CalibrationSet.spec).where(*same_name)).all()
    return [*sets, *session.exec(judged_by).all()]

"""Profiles that jobs took, the text of their rows, and pools to choose rows from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sqlmodel import Session, col, select

from app.base_models import service as base_models
from app.calibration import service as calibration
from app.calibration.built_set import ROWS
from app.calibration.models import CalibrationSet
from app.calibration.spec import SetSpec
from app.coverage.choosing import Chosen, Wish, as_set, choose_rows
from app.coverage.pools import pool_of
from app.coverage.profile import Profile, ProfileRefused, label
from app.errors import NotFound
from app.jobs import files
from app.jobs import service as jobs
from app.jobs.models import Job
from app.jobs.states import JobKind
from app.settings import Settings

# The other profile of a job: that of the rows it was judged on.
HELD_OUT = "held-out"
MOST_OTHERS = 50


@dataclass(frozen=True)
class OtherProfile:
    """A profile of the same model: ``key`` is a job's id, or ``held-out`` for the same job's rows
    that it was judged on."""

    key: str
    name: str
    job_id: str


@dataclass(frozen=True)
class RowTexts:
    """Rendered texts by their rows' ids; ``problem`` says why there are none where there should
    be."""

    by_row: Mapping[str, str]
    problem: str | None = None


def profile_of(settings: Settings, job_id: str) -> Profile:
    """The coverage a job measured. Raises NotFound while it has not."""
    return part_of(settings, job_id, {})


def part_of(settings: Settings, job_id: str, values: Mapping[str, str]) -> Profile:
    """The rows of a job's coverage that have some values by facet column. Raises NotFound while
    it has not measured any, ProfileRefused when no row has them."""
    file = settings.jobs_dir / job_id / files.COVERAGE
    if not file.is_file():
        raise NotFound(
            f"Job {job_id} has no coverage: it is written when its step “Measure coverage” is done."
        )
    return _part(file, file.stat().st_mtime_ns, tuple(values.items()))


def held_out_profile_of(settings: Settings, job_id: str) -> Profile:
    """The coverage of the rows a job was judged on. Raises NotFound."""
    file = settings.jobs_dir / job_id / files.HELD_OUT_COVERAGE
    if not file.is_file():
        raise NotFound(f"Job {job_id} counted no held-out rows.")
    return _loaded(file, file.stat().st_mtime_ns)


def other_profile(settings: Settings, job_id: str, key: str) -> Profile:
    """The profile an :class:`OtherProfile` of a job names. Raises NotFound."""
    return held_out_profile_of(settings, job_id) if key == HELD_OUT else profile_of(settings, key)


def other_profiles(session: Session, settings: Settings, job: Job) -> list[OtherProfile]:
    """What a job's profile can be held against: its held-out rows, then the newest other jobs on
    the same model that measured coverage."""
    found = []
    if (settings.jobs_dir / job.id / files.HELD_OUT_COVERAGE).is_file():
        found.append(OtherProfile(HELD_OUT, "its held-out rows", job.id))
    statement = (
        select(Job)
        .where(Job.model_id == job.model_id, Job.id != job.id)
        .order_by(col(Job.created_at).desc())
        .limit(MOST_OTHERS)
    )
    for other in session.exec(statement):
        if (settings.jobs_dir / other.id / files.COVERAGE).is_file():
            found.append(OtherProfile(other.id, other.name, other.id))
    return found


def texts_of(settings: Settings, profile: Profile, row_ids: Sequence[str]) -> RowTexts:
    """The rendered text of some rows; of a set that is not kept (a file of rows) none."""
    file = settings.sets_dir / profile.set_id / ROWS
    if not profile.set_id or not row_ids or not file.is_file():
        return RowTexts({})
    try:
        table = pq.read_table(
            file, columns=["row_id", "text"], filters=[("row_id", "in", list(row_ids))]
        )
    except (pa.ArrowInvalid, OSError) as error:
        what = str(error).partition("\n")[0].rstrip(".")
        return RowTexts({}, f"{file} is damaged ({what}), so that no row has its text.")
    texts = zip(table["row_id"].to_pylist(), table["text"].to_pylist(), strict=True)
    return RowTexts(dict(texts))


def composition_of(session: Session, job: Job) -> SetSpec:
    """The composition a job's set was made of. Raises NotFound."""
    return calibration.spec_of(calibration.get_set(session, job.set_id))


def choice_of(session: Session, settings: Settings, job_id: str, wish: Wish) -> Chosen:
    """Choose rows of what a job profiled. Raises NotFound, ProfileRefused."""
    job = jobs.get_job(session, job_id)
    profile_of(settings, job_id)
    file = settings.jobs_dir / job_id / files.COVERAGE
    composition = composition_of(session, job).model_dump_json()
    return _chosen(file, file.stat().st_mtime_ns, composition, wish)


def save_choice(
    session: Session, settings: Settings, job_id: str, wish: Wish, name: str
) -> CalibrationSet:
    """Keep the chosen rows as an ordinary set. Raises NotFound, ProfileRefused."""
    chosen = choice_of(session, settings, job_id, wish)
    spec = composition_of(session, jobs.get_job(session, job_id))
    return calibration.save_set(session, as_set(chosen, spec, name))


def start_pool(session: Session, settings: Settings, job_id: str, times: int) -> Job:
    """Save the pool of a job's set and start the job that profiles it.

    Raises NotFound, CompositionRefused where the sources have hardly more than the set, BrokerGone.
    """
    job = jobs.get_job(session, job_id)
    spec = composition_of(session, job)
    model = base_models.get_model(session, job.model_id)
    index = calibration.index_for(settings, spec, Path(model.path))
    saved = calibration.save_set(session, pool_of(spec, index, times))
    new = jobs.compose_job(
        session, settings, kind=JobKind.PROFILE, set_id=saved.id, model_id=model.id
    )
    return jobs.submit(session, settings, new)


@lru_cache(maxsize=4)
def _loaded(file: Path, _changed: int) -> Profile:
    return Profile.load(file)


@lru_cache(maxsize=8)
def _part(file: Path, changed: int, values: tuple[tuple[str, str], ...]) -> Profile:
    profile = _loaded(file, changed)
    if not values:
        return profile
    keep = np.logical_and.reduce([profile.column(column) == value for column, value in values])
    if not keep.any():
        asked = (f"{label(*one)} as its {one[0].replace('_', ' ')}" for one in values)
        raise ProfileRefused(f"No row of the set has {' and '.join(asked)}: ask for less.")
    return profile.rows_where(keep)


@lru_cache(maxsize=8)
def _chosen(file: Path, changed: int, composition: str, wish: Wish) -> Chosen:
    return choose_rows(_loaded(file, changed), SetSpec.model_validate_json(composition), wish)

"""What can be done with jobs: submit, look at, cancel, and find those that were lost.

Every change of state is one conditional UPDATE that must change exactly one row, so two
processes that want the same job cannot both have it.
"""

from __future__ import annotations

import codecs
import secrets
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, func, select

from app.base_models import service as base_models
from app.calibration import service as calibration
from app.calibration.held_out import held_out_for
from app.database import utc_now
from app.errors import Conflict, NotFound, Refused
from app.jobs import files
from app.jobs.models import Job, JobEvent
from app.jobs.queue import send
from app.jobs.spec import JobSpec
from app.jobs.states import FINAL, HELD_BY_WORKER, JobKind, JobState, may_follow
from app.jobs.telling import tell_of_end
from app.liveness import process_is_alive, this_host
from app.recipes import service as recipes
from app.recipes.schema import DEFAULT_PRESET
from app.settings import Settings
from app.sources.pinning import pinned_entries

LOST = (
    "The worker that ran this job is gone: it was stopped, or it crashed. "
    "Nothing that was finished is lost; retry goes on after the last finished layer."
)

LOG_BYTES = 256 * 1024


def get_job(session: Session, job_id: str) -> Job:
    """A job by its id. Raises NotFound."""
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound(f"There is no job {job_id!r}.")
    return job


def list_jobs(
    session: Session,
    *,
    state: JobState | None = None,
    kind: JobKind | None = None,
    limit: int = 50,
    offset: int = 0,
) -> list[Job]:
    """Jobs, the newest first, in one state and of one kind or of any."""
    statement = select(Job).order_by(col(Job.created_at).desc(), col(Job.id))
    if state:
        statement = statement.where(Job.state == state)
    if kind:
        statement = statement.where(Job.kind == kind)
    return list(session.exec(statement.offset(offset).limit(limit)))


def count_jobs(session: Session, *, state: JobState | None = None) -> int:
    """How many jobs there are, in one state or in any."""
    statement = select(func.count()).select_from(Job)
    if state:
        statement = statement.where(Job.state == state)
    return session.exec(statement).one()


def list_events(
    session: Session, job_id: str, *, after: int = 0, type: str | None = None
) -> list[JobEvent]:
    """The events of a job whose number is past ``after``, in order, of one type or of any."""
    statement = (
        select(JobEvent)
        .where(JobEvent.job_id == job_id, col(JobEvent.number) > after)
        .order_by(col(JobEvent.number))
    )
    if type:
        statement = statement.where(JobEvent.type == type)
    return list(session.exec(statement))


def move(
    session: Session, job_id: str, *, to: JobState, out_of: Collection[JobState], **values: Any
) -> bool:
    """Pass a job into ``to`` if it is in one of ``out_of``, and say whether it was.

    ``values`` are other columns set in the same UPDATE. Commits the session's transaction with
    it, or, when the job was in none of those states, rolls it back.
    """
    for state in out_of:
        if not may_follow(state, to):
            raise Refused(f"A job that is {state} cannot become {to}.")
    statement = (
        update(Job)
        .where(col(Job.id) == job_id, col(Job.state).in_([s.value for s in out_of]))
        .values(state=to.value, **values)
        .execution_options(synchronize_session=False)
    )
    session.flush()
    changed = session.connection().execute(statement).rowcount == 1
    if changed:
        session.commit()
    else:
        session.rollback()
    session.expire_all()
    return changed


def compose_job(
    session: Session,
    settings: Settings,
    *,
    kind: JobKind,
    set_id: str,
    model_id: str,
    recipe: str | None = None,
) -> Job:
    """The row of a new job; what cannot work is refused before anything is written.

    Raises NotFound for an unknown set, model or recipe, ModelRefused, CompositionRefused and
    RecipeRefused when they do not fit together.
    """
    calibration_set = calibration.get_set(session, set_id)
    model = base_models.get_model(session, model_id)
    chosen = None
    if kind.takes_recipe:
        chosen = recipes.get_recipe(session, recipe or DEFAULT_PRESET)
    quantizes = kind is JobKind.QUANTIZE
    spec = calibration.spec_of(calibration_set)
    base_models.require_usable(model, quantizes=chosen is not None)
    if chosen is not None:
        recipes.require_fitting(chosen, model)
    index = calibration.require_buildable(settings, spec, Path(model.path))
    files = calibration.files_of(settings, spec)
    job_id = secrets.token_hex(6)
    job_spec = JobSpec(
        job_id=job_id,
        kind=kind,
        directory=settings.jobs_dir / job_id,
        sets_dir=settings.sets_dir,
        sources_dir=settings.sources_dir,
        sources=pinned_entries(files),
        revisions={file.source: file.revision for file in files},
        model=Path(model.path),
        calibration=spec,
        held_out=held_out_for(spec, index) if quantizes else None,
        recipe=chosen,
        checkpoint=settings.checkpoints_dir / job_id if chosen else None,
        seed=spec.seed,
        threads=settings.threads,
    )
    return Job(
        id=job_id,
        kind=kind.value,
        name=f"{calibration_set.name} on {model.name}",
        set_id=set_id,
        model_id=model_id,
        recipe=chosen.name if chosen else None,
        spec=job_spec.model_dump(mode="json"),
    )


def submit(session: Session, settings: Settings, job: Job) -> Job:
    """Keep a new job and send it to the queue.

    The row is committed first: when the broker is gone the job stays queued and is sent again
    by ``send_again``. Raises BrokerGone then, and Conflict when what the job needs was deleted
    since it was composed.
    """
    session.add(job)
    try:
        session.commit()
    except IntegrityError as error:
        session.rollback()
        raise Conflict(
            "The set, the model or the job that this one goes on from was deleted meanwhile: "
            "nothing was started."
        ) from error
    send(settings, job.id)
    return job


def send_again(session: Session, settings: Settings) -> int:
    """Send every queued job once more. A second delivery finds the job claimed and does nothing.

    Returns how many were sent. Raises BrokerGone.
    """
    queued = list_jobs(session, state=JobState.QUEUED, limit=1000)
    for job in reversed(queued):
        send(settings, job.id)
    return len(queued)


def cancel(session: Session, job_id: str) -> Job:
    """Ask for a job to be stopped.

    A waiting job is cancelled at once. A job that a worker holds is ``cancelling`` until its
    whole process group is gone. Raises Conflict when the job has ended.
    """
    job = get_job(session, job_id)
    ended = {"finished_at": utc_now(), "failure": None}
    if move(session, job_id, to=JobState.CANCELLED, out_of=[JobState.QUEUED], **ended):
        return get_job(session, job_id)
    held = [JobState.STARTING, JobState.RUNNING]
    if move(session, job_id, to=JobState.CANCELLING, out_of=held):
        return get_job(session, job_id)
    job = get_job(session, job_id)
    if job.state == JobState.CANCELLING:
        return job
    raise Conflict(f"Job {job_id} is {job.state} already: there is nothing to cancel.")


def finished_layers(job: Job) -> int:
    """How many layers of an ended job are kept, so that a retry need not do them again."""
    # The first record is what comes before the layers.
    return max(0, sum(1 for _ in layers_of(job).glob("layer-*.json")) - 1)


def layers_of(job: Job) -> Path:
    """Where a job's finished layers are: its own, or those it was to go on from."""
    spec = JobSpec.model_validate(job.spec)
    if spec.layers_from is None or any(spec.layers_directory.glob("layer-*.json")):
        return spec.layers_directory
    return spec.layers_from


def newest_unfinished(session: Session, set_id: str, kind: JobKind) -> Job | None:
    """The newest job of a kind on a set that has not ended, None when there is none."""
    statement = (
        select(Job)
        .where(
            Job.set_id == set_id,
            Job.kind == kind.value,
            col(Job.state).not_in([state.value for state in FINAL]),
        )
        .order_by(col(Job.created_at).desc())
    )
    return session.exec(statement).first()


def newest_twin(session: Session, job: Job) -> Job | None:
    """The newest other job with the same set, model and recipe that has not ended."""
    statement = (
        select(Job)
        .where(
            Job.id != job.id,
            Job.kind == job.kind,
            Job.set_id == job.set_id,
            Job.model_id == job.model_id,
            Job.recipe == job.recipe,
            col(Job.state).not_in([state.value for state in FINAL]),
        )
        .order_by(col(Job.created_at).desc())
    )
    return session.exec(statement).first()


def is_any_held(session: Session) -> bool:
    """Whether a worker holds a job."""
    held = col(Job.state).in_([state.value for state in HELD_BY_WORKER])
    return session.exec(select(func.count()).select_from(Job).where(held)).one() > 0


def find_lost(session: Session, settings: Settings) -> list[str]:
    """Mark the jobs whose worker is gone as lost, tell of it, and return their ids.

    On this machine the kernel is asked; of another machine only the heartbeat is known.
    """
    silent_since = utc_now() - timedelta(seconds=settings.lost_seconds)
    held = select(Job).where(col(Job.state).in_([state.value for state in HELD_BY_WORKER]))
    lost = []
    for job in session.exec(held).all():
        if job.worker_host == this_host():
            gone = not process_is_alive(job.worker_pid, job.worker_started)
        else:
            gone = job.heartbeat_at is None or job.heartbeat_at < silent_since
        if gone and move(
            session,
            job.id,
            to=JobState.LOST,
            out_of=HELD_BY_WORKER,
            failure=LOST,
            finished_at=utc_now(),
        ):
            lost.append(job.id)
            tell_of_end(settings, get_job(session, job.id))
    return lost


def read_log(settings: Settings, job_id: str, offset: int) -> tuple[str, int]:
    """What a job's log holds from a byte offset on, and the offset to ask from next.

    At most ``LOG_BYTES``; a character that they cut in two is left for the next call.
    A job that has not started has an empty log.
    """
    path = settings.jobs_dir / job_id / files.LOG
    if not path.is_file():
        return "", 0
    with path.open("rb") as log_file:
        log_file.seek(min(offset, path.stat().st_size))
        start = log_file.tell()
        chunk = log_file.read(LOG_BYTES)
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    text = decoder.decode(chunk)
    pending, _ = decoder.getstate()
    return text, start + len(chunk) - len(pending)

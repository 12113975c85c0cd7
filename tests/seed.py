"""A filled installation, made by the product's own functions: a model, sets, jobs in every state,
artifacts as the engine writes them.

The engine itself needs minutes; its numbers are stood in for by seeded random ones of the same
shape, so that every page has what it shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlmodel import Session

from app.base_models.models import BaseModelRecord
from app.base_models.service import add_model
from app.calibration.building import build_set
from app.calibration.built_set import BuiltSet
from app.calibration.composer import starter
from app.calibration.held_out import held_out_for
from app.calibration.models import CalibrationSet
from app.calibration.service import index_for, save_set
from app.calibration.spec import SetSpec, Slice
from app.coverage.profile import Profile
from app.coverage.summary import experts_reached
from app.database import session_for, utc_now
from app.facets import Facet
from app.jobs import record, service
from app.jobs.events import (
    Event,
    LayerQuantized,
    Notice,
    Progress,
    StepFinished,
    StepStarted,
)
from app.jobs.models import Job
from app.jobs.spec import (
    JobResult,
    Verification,
)
from app.jobs.states import JobKind, JobState, Step
from app.recipes.schema import DEFAULT_PRESET
from app.settings import Settings
from tests.seeded_artifacts import (
    evaluated_rows,
    evaluation_of_rows,
    layer_reports,
    module_reports,
    profile_of,
    searches,
    write_checkpoint,
    write_json,
)
from tests.seeded_model import LAYERS, write_model


@dataclass(frozen=True)
class Seeded:
    """Ids of what was made: a job of each kind of ending, by state."""

    model_id: str
    set_id: str
    jobs: dict[str, str]


def seed(settings: Settings) -> Seeded:
    """Fill a migrated installation."""
    directory = write_model(settings.data_dir / "models" / "MiniMax-M2-demo")
    with session_for(settings) as session:
        model = add_model(session, directory)
        spec = starter(settings)
        saved = save_set(session, spec)
        save_set(session, small_spec())
        jobs = {
            "succeeded": succeeded_job(session, settings, saved, model),
            "failed": failed_job(session, settings, saved, model),
            "cancelled": cancelled_job(session, settings, saved, model),
            "lost": lost_job(session, settings, saved, model),
            "running": running_job(session, settings, saved, model),
            "queued": queued_job(session, settings, saved, model).id,
        }
        return Seeded(model_id=model.id, set_id=saved.id, jobs=jobs)


def small_spec() -> SetSpec:
    """A set of two slices, one of them narrow."""
    return SetSpec(
        name="Systems languages and German",
        slices=(
            Slice(
                name="Systems languages",
                weight=3,
                facets={Facet.PROGRAMMING_LANGUAGE: ("C", "C++", "Rust", "Zig")},
                balance=Facet.PROGRAMMING_LANGUAGE,
            ),
            Slice(name="German", weight=1, facets={Facet.SPOKEN_LANGUAGE: ("de",)}),
        ),
        token_budget=20_000,
        seed=7,
    )


def queued_job(
    session: Session,
    settings: Settings,
    saved: CalibrationSet,
    model: BaseModelRecord,
    recipe: str = DEFAULT_PRESET,
) -> Job:
    """A job that waits; nothing is sent to a broker."""
    job = service.compose_job(
        session,
        settings,
        kind=JobKind.QUANTIZE,
        set_id=saved.id,
        model_id=model.id,
        recipe=recipe,
    )
    session.add(job)
    session.commit()
    return job


def _started_job(
    session: Session,
    settings: Settings,
    saved: CalibrationSet,
    model: BaseModelRecord,
    recipe: str = DEFAULT_PRESET,
) -> Job:
    job = queued_job(session, settings, saved, model, recipe)
    now = utc_now()
    values = {"started_at": now - timedelta(seconds=65), "heartbeat_at": now, "event_at": now}
    # A worker elsewhere, so that no sweep on this machine asks the kernel for it.
    values |= {"worker_host": "seed/1", "worker_pid": 1, "worker_started": 1.0}
    service.move(session, job.id, to=JobState.STARTING, out_of=[JobState.QUEUED], **values)
    service.move(session, job.id, to=JobState.RUNNING, out_of=[JobState.STARTING])
    directory = settings.jobs_dir / job.id
    directory.mkdir(parents=True, exist_ok=True)
    lines = [f"2026-11-23 09:4{i % 10}:00 INFO layer {i} of {LAYERS}\n" for i in range(LAYERS)]
    (directory / "log.txt").write_text("".join(lines))
    return job


def _tell(session: Session, job: Job, *events: Event) -> None:
    known = len(service.list_events(session, job.id))
    for number, event in enumerate(events, start=known + 1):
        record.keep(session, job.id, number, event)


def running_job(
    session: Session, settings: Settings, saved: CalibrationSet, model: BaseModelRecord
) -> str:
    """A job in the middle of its third step."""
    job = _started_job(session, settings, saved, model)
    _tell(session, job, *_first_steps(session, settings, job), StepStarted(step=Step.QUANTIZE))
    for report in layer_reports()[:3]:
        _tell(session, job, LayerQuantized(**report.model_dump(), seconds=3.0))
    far = Progress(
        step=Step.QUANTIZE, done=3, total=LAYERS, unit="layers", layer=3, batch=117, batches=143,
        eta_seconds=30_000,
    )  # fmt: skip
    _tell(session, job, far)
    # Far in the future: nobody beats this job's heart while a test looks at it.
    job = service.get_job(session, job.id)
    job.heartbeat_at = utc_now() + timedelta(days=1)
    session.add(job)
    session.commit()
    return job.id


def failed_job(
    session: Session, settings: Settings, saved: CalibrationSet, model: BaseModelRecord
) -> str:
    """A job that failed in its second step."""
    job = _started_job(session, settings, saved, model)
    events = _first_steps(session, settings, job)
    _tell(session, job, *events[:2], StepStarted(step=Step.PROFILE))
    sentence = (
        "There is no room left on the disk of /data/jobs: free some space and retry. "
        "Nothing that was there before is lost."
    )
    _end(session, job, JobState.FAILED, failure=sentence)
    return job.id


def cancelled_job(
    session: Session, settings: Settings, saved: CalibrationSet, model: BaseModelRecord
) -> str:
    """A job somebody cancelled while it waited."""
    job = queued_job(session, settings, saved, model)
    service.cancel(session, job.id)
    return job.id


def lost_job(
    session: Session, settings: Settings, saved: CalibrationSet, model: BaseModelRecord
) -> str:
    """A job whose worker is gone."""
    job = _started_job(session, settings, saved, model)
    _end(session, job, JobState.LOST, failure=service.LOST)
    return job.id


def second_job(settings: Settings, seeded: Seeded, change: float = -0.4) -> str:
    """Another job that succeeded, on the same set and model with another recipe; its KL of COBOL
    differs by ``change``."""
    with session_for(settings) as session:
        return succeeded_job(
            session,
            settings,
            session.get_one(CalibrationSet, seeded.set_id),
            session.get_one(BaseModelRecord, seeded.model_id),
            recipe="experts-w4a16-g32-attn8",
            change=change,
        )


def succeeded_job(
    session: Session,
    settings: Settings,
    saved: CalibrationSet,
    model: BaseModelRecord,
    recipe: str = DEFAULT_PRESET,
    change: float = 0.0,
) -> str:
    """A job that went through every step, with all it leaves behind."""
    job = _started_job(session, settings, saved, model, recipe)
    steps = _first_steps(session, settings, job)
    layers = layer_reports()
    _tell(session, job, *steps, StepStarted(step=Step.QUANTIZE))
    told = [LayerQuantized(**report.model_dump(), seconds=3.0) for report in layers]
    _tell(session, job, *searches(), *told, StepFinished(step=Step.QUANTIZE, seconds=19.4))
    rows = evaluated_rows(change)
    evaluation = evaluation_of_rows(rows)
    for step, figures in (
        (Step.EVALUATE, {"rows": evaluation.rows, "kl_mean": evaluation.kl_mean}),
        (Step.EXPORT, {"files": 3}),
        (Step.VERIFY, {"tensors": 620, "quantized": 576}),
    ):
        done = StepFinished(step=step, seconds=4.2, figures=figures)
        _tell(session, job, StepStarted(step=step), done)
    directory = settings.jobs_dir / job.id
    write_json(directory / "layers.json", [one.model_dump() for one in layers])
    write_json(directory / "modules.json", [one.model_dump() for one in module_reports(layers)])
    write_json(directory / "evaluation.json", evaluation.model_dump())
    with (directory / "evaluation.npz").open("wb") as stream:
        rows.save(stream)
    reached, total = experts_reached(Profile.load(directory / "coverage.npz"))
    checkpoint = settings.checkpoints_dir / job.id
    built = _built(session, settings, job)
    files = write_checkpoint(checkpoint)
    result = JobResult(
        set_id=built.id,
        set_rows=built.rows,
        set_tokens=built.tokens,
        experts_reached=reached,
        experts_total=total,
        layers=layers,
        evaluation=evaluation,
        verification=Verification(ok=True, tensors=620, quantized=576, problems=[]),
        checkpoint=checkpoint,
        files=files,
        bytes_before=12_345_678,
        bytes_after=sum(file.size_bytes for file in files),
        seconds=61.0,
        cpu_seconds=58.2,
    )
    record.add_result(session, job.id, result.model_dump(mode="json"))
    _end(session, job, JobState.SUCCEEDED)
    return job.id


def _end(session: Session, job: Job, state: JobState, **values: str) -> None:
    ended = {"finished_at": utc_now(), **values}
    service.move(session, job.id, to=state, out_of=[JobState.RUNNING], **ended)


def _built(session: Session, settings: Settings, job: Job) -> BuiltSet:
    """The job's set, really built; only once."""
    model = session.get_one(BaseModelRecord, job.model_id)
    return build_set(
        SetSpec.model_validate(session.get_one(CalibrationSet, job.set_id).spec),
        tokenizer_dir=Path(model.path),
        sets_dir=settings.sets_dir,
        index_dir=settings.index_dir,
    )


def _first_steps(session: Session, settings: Settings, job: Job) -> list[Event]:
    """Build a real set, write a coverage of it and of its held-out rows, and what the two steps
    say."""
    built = _built(session, settings, job)
    profile = profile_of(built)
    with (settings.jobs_dir / job.id / "coverage.npz").open("wb") as stream:
        profile.save(stream)
    spec = SetSpec.model_validate(session.get_one(CalibrationSet, job.set_id).spec)
    model = session.get_one(BaseModelRecord, job.model_id)
    index = index_for(settings, spec, Path(model.path))
    if held_out := held_out_for(spec, index):
        judged = build_set(
            held_out,
            tokenizer_dir=Path(model.path),
            sets_dir=settings.sets_dir,
            index_dir=settings.index_dir,
        )
        with (settings.jobs_dir / job.id / "coverage-held-out.npz").open("wb") as stream:
            profile_of(judged).save(stream)
    reached, total = experts_reached(profile)
    notices = [Notice(level="warning", message=s, step=Step.BUILD) for s in built.warnings[:2]]
    return [
        StepStarted(step=Step.BUILD),
        StepFinished(
            step=Step.BUILD, seconds=1.3, figures={"rows": built.rows, "tokens": built.tokens}
        ),
        *notices,
        StepStarted(step=Step.PROFILE),
        StepFinished(
            step=Step.PROFILE,
            seconds=6.1,
            figures={"experts_reached": reached, "experts_total": total},
        ),
    ]

"""What the pages about jobs show."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, computed_field
from sqlmodel import Session

from app.database import utc_now
from app.deletions import Deletion
from app.jobs import files, service
from app.jobs.activity import Activity, activity_of
from app.jobs.deletion import deletion_of
from app.jobs.models import Job, JobEvent
from app.jobs.retrying import unfinished_retry
from app.jobs.spec import JobResult, LayerReport
from app.jobs.states import FINAL, STEPS, JobKind, JobState, Step
from app.jobs.wording import in_words
from app.paging import page_within
from app.settings import Settings

PAGE_ROWS = 25
LOG_TAIL_BYTES = 32_000

STEP_LABELS = {
    Step.BUILD: "Build the set",
    Step.PROFILE: "Measure coverage",
    Step.QUANTIZE: "Quantize",
    Step.EVALUATE: "Evaluate",
    Step.EXPORT: "Export",
    Step.VERIFY: "Verify",
    Step.PREFLIGHT: "Preflight",
    Step.AUDIT: "Audit",
}


class JobRow(BaseModel):
    """One job in a list. ``seconds`` is how long it ran, or has run until now."""

    id: str
    name: str
    kind: JobKind
    state: JobState
    activity: Activity
    step: Step | None
    recipe: str | None
    set_id: str
    model_id: str
    retry_of: str | None
    progress_done: int | None
    progress_total: int | None
    progress_unit: str | None
    progress_detail: str | None
    progress_eta_seconds: float | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    heard_at: datetime | None
    seconds: float | None
    failure: str | None

    @computed_field
    @property
    def is_final(self) -> bool:
        """Whether nothing about the job changes any more."""
        return self.state in FINAL


class JobListView(BaseModel):
    """A page of the list of jobs; ``counts`` holds how many there are in each state."""

    jobs: list[JobRow]
    state: JobState | None
    counts: dict[JobState, int]
    total: int
    page: int
    pages: int


class StepView(BaseModel):
    """One step of a job. ``share`` is how much of it is done, None when that is not known."""

    step: Step
    label: str
    state: Literal["waiting", "running", "done", "stopped"]
    done: int | None = None
    total: int | None = None
    unit: str | None = None
    share: float | None = None
    detail: str | None = None
    eta_seconds: float | None = None
    seconds: float | None = None
    figures: dict[str, Any] = {}
    in_words: list[str] = []


class NoticeView(BaseModel):
    """A sentence the job said."""

    at: datetime
    level: Literal["info", "warning"]
    message: str


class JobView(BaseModel):
    """One job: what state it is in, what it is doing, what it found. ``deletion`` is what deleting
    it would mean, None before it has ended; ``problem`` why something that was asked was refused.
    ``again`` is the job that does its work again now, ``twin`` another one with the same set, model
    and recipe that has not ended either; None where there is none.
    """

    job: JobRow
    steps: list[StepView]
    layers: list[LayerReport]
    notices: list[NoticeView]
    warnings: int
    jobs_before: int
    can_cancel: bool
    can_retry: bool
    again: str | None
    twin: str | None
    finished_layers: int
    has_coverage: bool
    has_errors: bool
    has_checkpoint: bool
    result: JobResult | None
    deletion: Deletion | None
    problem: str | None = None


class LogView(BaseModel):
    """Text of a job's log; ask again from byte ``offset`` on. ``ended`` when none will come."""

    job_id: str
    text: str
    offset: int
    ended: bool


def job_row(job: Job, settings: Settings) -> JobRow:
    """A job as lists show it."""
    now = utc_now()
    return JobRow(
        **job.model_dump(include=set(JobRow.model_fields) - {"activity", "heard_at", "seconds"}),
        activity=activity_of(job, now, settings.stall_seconds),
        heard_at=job.event_at or job.started_at,
        seconds=job.ran_for(now),
    )


def job_list(
    session: Session, settings: Settings, *, state: JobState | None, page: int
) -> JobListView:
    """A page of jobs, the newest first; a page past the last is the last."""
    counts = {each: service.count_jobs(session, state=each) for each in JobState}
    total = counts[state] if state else sum(counts.values())
    page, pages = page_within(total, page, PAGE_ROWS)
    jobs = service.list_jobs(session, state=state, limit=PAGE_ROWS, offset=(page - 1) * PAGE_ROWS)
    return JobListView(
        jobs=[job_row(job, settings) for job in jobs],
        state=state,
        counts=counts,
        total=total,
        page=page,
        pages=pages,
    )


def job_view(
    session: Session, settings: Settings, job_id: str, problem: str | None = None
) -> JobView:
    """Everything the page of a job shows. Raises NotFound."""
    job = service.get_job(session, job_id)
    events = service.list_events(session, job_id)
    row = job_row(job, settings)
    notices = [_notice(event) for event in events if event.type == "notice"]
    directory = settings.jobs_dir / job.id
    ended_early = row.is_final and row.state is not JobState.SUCCEEDED
    again = unfinished_retry(session, job) if ended_early else None
    twin = None if row.is_final else service.newest_twin(session, job)
    return JobView(
        job=row,
        steps=_steps(row, events),
        layers=reported_layers(events),
        notices=notices,
        warnings=sum(notice.level == "warning" for notice in notices),
        jobs_before=_jobs_before(session, job) if row.state is JobState.QUEUED else 0,
        can_cancel=row.state in {JobState.QUEUED, JobState.STARTING, JobState.RUNNING},
        can_retry=ended_early and again is None,
        again=again.id if again else None,
        twin=twin.id if twin else None,
        finished_layers=service.finished_layers(job),
        has_coverage=(directory / files.COVERAGE).is_file(),
        has_errors=(directory / files.LAYERS).is_file(),
        has_checkpoint=bool(job.result and job.result.get("verification")),
        result=JobResult.model_validate(job.result) if job.result else None,
        deletion=deletion_of(session, settings, job) if row.is_final else None,
        problem=problem,
    )


def log_view(session: Session, settings: Settings, job_id: str, offset: int | None) -> LogView:
    """The log from a byte offset on; without one, its last whole lines. Raises NotFound."""
    job = service.get_job(session, job_id)
    ended = JobState(job.state) in FINAL
    start = offset
    if start is None:
        path = settings.jobs_dir / job_id / files.LOG
        start = max(0, path.stat().st_size - LOG_TAIL_BYTES) if path.is_file() else 0
    text, following = service.read_log(settings, job_id, start)
    if offset is None and start > 0:
        text = text.partition("\n")[2]
    # A log may be longer than one answer: it has ended when an ended job has no more of it.
    return LogView(job_id=job_id, text=text, offset=following, ended=ended and not text)


def _jobs_before(session: Session, job: Job) -> int:
    waiting = service.list_jobs(session, state=JobState.QUEUED, limit=1000)
    return sum(other.created_at < job.created_at for other in waiting)


def _steps(row: JobRow, events: list[JobEvent]) -> list[StepView]:
    finished = {event.step: event.data for event in events if event.type == "step_finished"}
    started = {event.step: event.at for event in events if event.type == "step_started"}
    return [_step(step, row, started, finished) for step in STEPS[row.kind]]


def _step(
    step: Step,
    row: JobRow,
    started: dict[str | None, datetime],
    finished: dict[str | None, dict[str, Any]],
) -> StepView:
    label = STEP_LABELS[step]
    if step in finished:
        data = finished[step]
        return StepView(
            step=step,
            label=label,
            state="done",
            share=1.0,
            seconds=data.get("seconds"),
            figures=data.get("figures") or {},
            in_words=in_words(data.get("figures") or {}),
        )
    if step not in started:
        return StepView(step=step, label=label, state="waiting")
    view = StepView(step=step, label=label, state="stopped" if row.is_final else "running")
    if row.step is step and row.progress_total:
        view.done, view.total, view.unit = row.progress_done, row.progress_total, row.progress_unit
        view.share = min(1.0, (row.progress_done or 0) / row.progress_total)
        view.detail, view.eta_seconds = row.progress_detail, row.progress_eta_seconds
        # The layers of a quantization are timed by the engine, which knows those it took over.
        if step is not Step.QUANTIZE and view.eta_seconds is None and row.heard_at is not None:
            elapsed = (row.heard_at - started[step]).total_seconds()
            view.eta_seconds = seconds_left(view.share, elapsed)
    return view


def seconds_left(share: float, elapsed: float) -> float | None:
    """What is left of a step at its pace so far, in seconds; None while less than a twentieth of
    it is done, when the pace says little."""
    return elapsed * (1 - share) / share if share >= 0.05 else None


def reported_layers(events: list[JobEvent]) -> list[LayerReport]:
    """The errors of the layers a job has told of so far."""
    found = [event.data for event in events if event.type == "layer"]
    return [LayerReport.model_validate(data) for data in found]


def _notice(event: JobEvent) -> NoticeView:
    level = "warning" if event.data.get("level") == "warning" else "info"
    return NoticeView(at=event.at, level=level, message=str(event.data.get("message", "")))

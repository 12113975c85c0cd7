"""The pages about jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, PlainTextResponse, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlmodel import Session

from app.deletions import Deleted
from app.dependencies import SessionDep, SettingsDep
from app.errors import NotFound, Refused
from app.jobs import files, live, service
from app.jobs.deletion import delete
from app.jobs.retrying import retry
from app.jobs.spec import Resume
from app.jobs.states import JobState
from app.jobs.submission import NewJob, submitted
from app.jobs.views import JobListView, JobView, LogView, job_list, job_view, log_view
from app.negotiation import (
    SubmissionDep,
    Table,
    answer,
    created,
    done,
    is_fragment_request,
    takes,
    wants_html,
)
from app.settings import Settings

router = APIRouter(tags=["jobs"])

JOB_COLUMNS = (
    "id", "name", "kind", "state", "step", "recipe", "set_id", "model_id", "created_at",
    "started_at", "finished_at", "seconds", "failure",
)  # fmt: skip


@router.get("/jobs", response_model=JobListView)
def jobs_page(
    request: Request,
    session: SessionDep,
    settings: SettingsDep,
    state: JobState | None = None,
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> Response:
    """Jobs, the newest first, in one state or in any."""
    view = job_list(session, settings, state=state, page=page)
    rows = ([getattr(job, column) for column in JOB_COLUMNS] for job in view.jobs)
    return answer(request, view, "jobs/list.html", table=Table("jobs", JOB_COLUMNS, rows))


@router.post("/jobs", response_model=JobView, status_code=201, openapi_extra=takes(NewJob))
def submit_job(
    request: Request, session: SessionDep, settings: SettingsDep, submission: SubmissionDep
) -> Response:
    """Start a job on a saved set, or on the starter set, and send it to the queue."""
    job = submitted(session, settings, NewJob.of(submission))
    return created(request, f"/jobs/{job.id}", job_view(session, settings, job.id))


@router.get("/jobs/{job_id}", response_model=JobView)
def job_page(request: Request, session: SessionDep, settings: SettingsDep, job_id: str) -> Response:
    """One job: its state, its steps, what it found so far."""
    view = job_view(session, settings, job_id)
    return answer(request, view, "jobs/show.html")


@router.get("/jobs/{job_id}/events", response_class=EventSourceResponse)
async def job_events(settings: SettingsDep, job_id: str) -> AsyncIterator[ServerSentEvent]:
    """The changing part of a job's page as HTML fragments, one after every change."""
    async for event in live.fragments(settings, job_id):
        yield event


@router.get("/jobs/{job_id}/log", response_model=LogView)
def job_log(
    request: Request,
    session: SessionDep,
    settings: SettingsDep,
    job_id: str,
    offset: Annotated[int | None, Query(ge=0)] = None,
) -> Response:
    """The log from a byte offset on, and the offset to ask from next."""
    view = log_view(session, settings, job_id, offset)
    template = "jobs/_log.html" if is_fragment_request(request) else "jobs/log.html"
    return answer(request, view, template)


@router.get("/jobs/{job_id}/log.txt", response_class=PlainTextResponse)
def job_log_file(session: SessionDep, settings: SettingsDep, job_id: str) -> Response:
    """The whole log as text."""
    job = service.get_job(session, job_id)
    path = settings.jobs_dir / job.id / files.LOG
    if not path.is_file():
        return PlainTextResponse("")
    return FileResponse(path, media_type="text/plain; charset=utf-8")


@router.post("/jobs/{job_id}/cancel", response_model=JobView)
def cancel_job(
    request: Request, session: SessionDep, settings: SettingsDep, job_id: str
) -> Response:
    """Ask for a job to be stopped."""
    service.cancel(session, job_id)
    return done(request, f"/jobs/{job_id}", job_view(session, settings, job_id))


@router.post("/jobs/{job_id}/retry", response_model=JobView, status_code=201)
def retry_job(
    request: Request, session: SessionDep, settings: SettingsDep, job_id: str
) -> Response:
    """Start a job that ended early again, as a job of its own that takes over finished layers."""
    return _again(request, session, settings, job_id, "if_possible")


@router.post("/jobs/{job_id}/resume", response_model=JobView, status_code=201)
def resume_job(
    request: Request, session: SessionDep, settings: SettingsDep, job_id: str
) -> Response:
    """Go on with a job that ended early; refused where its finished layers cannot be used."""
    return _again(request, session, settings, job_id, "required")


@router.post("/jobs/{job_id}/restart", response_model=JobView, status_code=201)
def restart_job(
    request: Request, session: SessionDep, settings: SettingsDep, job_id: str
) -> Response:
    """Start a job that ended early from its first layer, as a job of its own."""
    return _again(request, session, settings, job_id, "never")


@router.post("/jobs/{job_id}/delete", response_model=Deleted)
def delete_job(
    request: Request, session: SessionDep, settings: SettingsDep, job_id: str
) -> Response:
    """Take a job and its checkpoint away; refused while something needs its files."""
    try:
        deleted = delete(session, settings, job_id)
    except Refused as error:
        return _refused(request, session, settings, job_id, error)
    return done(request, "/jobs", deleted)


def _again(
    request: Request, session: Session, settings: Settings, job_id: str, resume: Resume
) -> Response:
    try:
        again = retry(session, settings, job_id, resume)
    except Refused as error:
        return _refused(request, session, settings, job_id, error)
    return created(request, f"/jobs/{again.id}", job_view(session, settings, again.id))


def _refused(
    request: Request, session: Session, settings: Settings, job_id: str, error: Refused
) -> Response:
    """A refusal on the job's own page, for a person and a job that is there."""
    if not wants_html(request) or isinstance(error, NotFound):
        raise error
    view = job_view(session, settings, job_id, problem=error.sentence)
    return answer(request, view, "jobs/show.html", status=error.status)

"""``calibrant jobs``: what runs, what was heard of it, and stopping it.

Each command shows the view that the page of the same name shows, of the local data directory or
of a server.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated

import typer
from sqlmodel import Session

from app.console import Json, installed, say, tell, wide, write
from app.deletions import Deleted
from app.formatting import size
from app.jobs import deletion, retrying, service
from app.jobs.spec import Resume
from app.jobs.states import JobKind, JobState
from app.jobs.submission import NewJob, submitted
from app.jobs.views import JobListView, JobRow, JobView, LogView, job_list, job_view, log_view
from app.recipes.schema import DEFAULT_PRESET
from app.remote import ask, server
from app.settings import Settings
from app.validation import validated

FOLLOW_SECONDS = 0.5

app = typer.Typer(help="Jobs: what runs and what ran.", no_args_is_help=True)
JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="JOB")]


@contextmanager
def _jobs_here() -> Iterator[tuple[Session, Settings]]:
    """The local installation, where a job whose worker is gone is said to be lost."""
    with installed() as (session, settings):
        service.find_lost(session, settings)
        yield session, settings


@app.command("list")
def list_(
    json: Json = False,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    page: Annotated[int, typer.Option(min=1, help="Which page of the list.")] = 1,
) -> None:
    """Jobs, the newest first."""
    if server():
        view = ask("GET", "/jobs", JobListView, state=state and state.value, page=page)
    else:
        with _jobs_here() as (session, settings):
            view = job_list(session, settings, state=state, page=page)
    if json:
        say(view.model_dump(mode="json"))
        return
    tell(*(_line(job) for job in view.jobs))


def _line(job: JobRow) -> str:
    return wide(job.id, f"{job.state:<10} {job.kind:<9} {job.name}")


def _view(job_id: str) -> JobView:
    if server():
        return ask("GET", f"/jobs/{job_id}", JobView)
    with _jobs_here() as (session, settings):
        return job_view(session, settings, job_id)


@app.command()
def show(job_id: JobId, json: Json = False) -> None:
    """One job: its state, its steps, its figures, its failure."""
    view = _view(job_id)
    if json:
        say(view.model_dump(mode="json"))
        return
    job = view.job
    tell(
        wide("name", job.name),
        wide("state", f"{job.state} ({job.activity})"),
        wide("created", _when(job.created_at)),
        wide("finished", _when(job.finished_at)),
        *([wide("failure", job.failure)] if job.failure else []),
        *(wide(step.step, _step_line(step.state, step.seconds)) for step in view.steps),
    )


def _when(moment: datetime | None) -> str:
    return moment.isoformat(timespec="seconds") if moment else "not yet"


def _step_line(state: str, seconds: float | None) -> str:
    return state if seconds is None else f"{state} in {seconds:.1f} s"


def _log(job_id: str, offset: int) -> LogView:
    if server():
        return ask("GET", f"/jobs/{job_id}/log", LogView, offset=offset)
    with _jobs_here() as (session, settings):
        return log_view(session, settings, job_id, offset)


@app.command()
def logs(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job ends.")] = False,
    offset: Annotated[int, typer.Option(min=0, help="The byte to begin at.")] = 0,
    json: Json = False,
) -> None:
    """What the job's process wrote."""
    while True:
        view = _log(job_id, offset)
        if json:
            say(view.model_dump(mode="json"))
            return
        write(view.text)
        if view.ended or not (follow or view.text):
            return
        offset = view.offset
        if not view.text:
            time.sleep(FOLLOW_SECONDS)


@app.command()
def cancel(job_id: JobId, json: Json = False) -> None:
    """Stop a job; returns when its processes are gone."""
    if server():
        ask("POST", f"/jobs/{job_id}/cancel", JobView)
    else:
        with _jobs_here() as (session, _):
            service.cancel(session, job_id)
    view = _view(job_id)
    while not view.job.is_final:
        time.sleep(FOLLOW_SECONDS)
        view = _view(job_id)
    say(view.model_dump(mode="json")) if json else tell(_line(view.job))


@app.command()
def retry(job_id: JobId, json: Json = False) -> None:
    """Start a job that ended early again, as a new job that takes over finished layers."""
    _again(job_id, "retry", "if_possible", json)


@app.command()
def resume(job_id: JobId, json: Json = False) -> None:
    """Go on with a job that ended early; refused where its finished layers cannot be used."""
    _again(job_id, "resume", "required", json)


@app.command()
def restart(job_id: JobId, json: Json = False) -> None:
    """Start a job that ended early from its first layer, as a new job."""
    _again(job_id, "restart", "never", json)


def _again(job_id: str, action: str, resume: Resume, json: bool) -> None:
    if server():
        view = ask("POST", f"/jobs/{job_id}/{action}", JobView)
    else:
        with _jobs_here() as (session, settings):
            again = retrying.retry(session, settings, job_id, resume)
            view = job_view(session, settings, again.id)
    say(view.model_dump(mode="json")) if json else tell(_line(view.job))


@app.command()
def delete(job_id: JobId, json: Json = False) -> None:
    """Take a job away for good, with its finished layers and its checkpoint; refused while it runs
    or something else needs them."""
    if server():
        deleted = ask("POST", f"/jobs/{job_id}/delete", Deleted)
    else:
        with _jobs_here() as (session, settings):
            deleted = deletion.delete(session, settings, job_id)
    if json:
        say(deleted.model_dump(mode="json"))
    else:
        tell(f"{deleted.id} deleted, {size(deleted.freed_bytes)} freed")


@app.command()
def submit(
    set_id: Annotated[str, typer.Option("--set", help="A saved set's id, or starter.")],
    model_id: Annotated[str, typer.Option("--model", help="An added model's id.")],
    recipe: Annotated[str, typer.Option(help="A recipe's slug.")] = DEFAULT_PRESET,
    kind: Annotated[JobKind, typer.Option(help="What the job is for.")] = JobKind.QUANTIZE,
    json: Json = False,
) -> None:
    """Send a job to the queue, by default the main job."""
    given = {"set_id": set_id, "model_id": model_id, "kind": kind, "recipe": recipe}
    new = validated(NewJob, given)
    if server():
        view = ask("POST", "/jobs", JobView, new)
    else:
        with _jobs_here() as (session, settings):
            job = submitted(session, settings, new)
            view = job_view(session, settings, job.id)
    say(view.model_dump(mode="json")) if json else tell(_line(view.job))

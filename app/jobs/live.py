"""A job's page while it runs: a stream of fragments, one whenever something changed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from fastapi.concurrency import run_in_threadpool
from fastapi.sse import ServerSentEvent

from app.database import session_for
from app.errors import NotFound
from app.jobs.views import JobView, job_view
from app.settings import Settings
from app.templating import render

LOOK_SECONDS = 0.5
# A browser that is gone unnoticed must not hold its place for ever: the stream ends, and a
# browser that is still there connects again (polar's eventstream has the same limit).
LIFE_SECONDS = 600.0
CLOSE = ServerSentEvent(event="close", raw_data="ended")


async def fragments(
    settings: Settings, job_id: str, life_seconds: float = LIFE_SECONDS
) -> AsyncIterator[ServerSentEvent]:
    """The changing part of a job's page, now and after every change, until the job has ended.

    Ends with a ``close`` event when nothing will change any more; without one when the stream
    has lived its time, so that the browser connects again.
    """
    sent = ""
    deadline = time.monotonic() + life_seconds
    while time.monotonic() < deadline:
        try:
            view = await run_in_threadpool(_look, settings, job_id)
        except NotFound:
            break
        if (content := _content(view)) != sent:
            sent = content
            yield ServerSentEvent(raw_data=render("jobs/_live.html", view=view))
        if view.job.is_final:
            break
        await asyncio.sleep(LOOK_SECONDS)
    else:
        return
    yield CLOSE


def _content(view: JobView) -> str:
    """What a change is told by: everything but the time that passes, which the page ticks."""
    return view.model_dump_json(exclude={"job": {"seconds"}})


def _look(settings: Settings, job_id: str) -> JobView:
    with session_for(settings) as session:
        return job_view(session, settings, job_id)

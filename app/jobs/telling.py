"""Whoever waits for a job is told when it has ended: one POST to an address they set."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx
import structlog

from app.formatting import duration, number
from app.jobs.models import Job
from app.jobs.spec import JobResult
from app.settings import Settings

TIMEOUT_SECONDS = 10.0
CONNECTING_TRIES = 2

log = structlog.get_logger()


def tell_of_end(settings: Settings, job: Job) -> None:
    """Send what became of an ended job to ``CALIBRANT_NOTIFY_URL``, if there is one.

    The job is over either way: an address that does not answer is told in the log, by its host
    alone, because such addresses are secrets.
    """
    if settings.notify_url is None:
        return
    url = settings.notify_url.get_secret_value()
    sentence = sentence_of(job)
    document = {
        "text": sentence,  # as Slack and Mattermost read it
        "content": sentence,  # as Discord does
        "job": job.id,
        "name": job.name,
        "kind": job.kind,
        "state": job.state,
        "failure": job.failure,
    }
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=CONNECTING_TRIES)) as client:
            client.post(url, json=document, timeout=TIMEOUT_SECONDS).raise_for_status()
    except httpx.HTTPStatusError as error:
        answer = error.response.status_code
        log.warning("nobody told", job=job.id, host=urlsplit(url).hostname, answered=answer)
    except httpx.HTTPError as error:
        reason = type(error).__name__
        log.warning("nobody told", job=job.id, host=urlsplit(url).hostname, reason=reason)


def sentence_of(job: Job) -> str:
    """What became of an ended job, as a person is told it."""
    ran = ""
    if job.finished_at is not None and (seconds := job.ran_for(job.finished_at)) is not None:
        ran = f" after {duration(seconds)}"
    sentence = f"{job.name}: {job.kind} job {job.id} {job.state}{ran}."
    if job.failure:
        return f"{sentence} {job.failure}"
    evaluation = JobResult.model_validate(job.result).evaluation if job.result else None
    if evaluation is not None:
        sentence += f" KL {number(evaluation.kl_mean)} nats a token on held-out rows."
    return sentence

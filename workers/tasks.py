"""Celery's tasks: a job's id comes in, the supervisor does the rest."""

from __future__ import annotations

from typing import Any

from celery.signals import worker_process_init

from app.jobs.queue import RUN_JOB
from app.liveness import die_with_parent
from app.settings import get_settings
from workers.celery_app import celery_app
from workers.supervisor import supervise


@celery_app.task(name=RUN_JOB)
def run_job(job_id: str) -> None:
    """Run one job to its end."""
    supervise(get_settings(), job_id)


@worker_process_init.connect
def _end_with_the_worker(**_: Any) -> None:
    # The pool's process supervises the job. Without this it outlives a worker that is killed,
    # and a second worker would start another job on the same GPU.
    die_with_parent()

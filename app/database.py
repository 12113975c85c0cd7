"""The database: SQLite in the data directory, or PostgreSQL by ``DATABASE_URL``."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from app.errors import Conflict, DatabaseAway
from app.settings import ROOT, Settings

SQLITE_BUSY_SECONDS = 15


def utc_now() -> datetime:
    """This moment, with its time zone."""
    return datetime.now(UTC)


def url_of(settings: Settings) -> URL:
    """The database to use: ``DATABASE_URL`` with psycopg as its driver, or SQLite in the data
    directory, whatever characters its path has."""
    if settings.database_url is None:
        return URL.create("sqlite", database=str(settings.data_dir / "calibrant.sqlite3"))
    url = make_url(settings.database_url)
    if url.drivername in {"postgres", "postgresql"}:
        return url.set(drivername="postgresql+psycopg")
    return url


@lru_cache
def engine_for(url: URL) -> Engine:
    """The engine of a database URL; one for each URL and process."""
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": SQLITE_BUSY_SECONDS})
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # WAL lets the pages read while the worker writes; SQLite checks foreign keys only when asked.
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


@contextmanager
def session_for(settings: Settings) -> Iterator[Session]:
    """A session on the installation's database; what is not committed is rolled back."""
    with Session(engine_for(url_of(settings)), expire_on_commit=False) as session:
        yield session


def why_away(error: DBAPIError) -> DatabaseAway:
    """What a person is told of a failure of the database itself: it is held, full, or gone."""
    reason = str(error.orig).strip().partition("\n")[0]
    if "database is locked" in reason:
        return DatabaseAway(
            f"Another process has held the database for {SQLITE_BUSY_SECONDS} seconds, so nothing "
            "was changed: try again when it is done."
        )
    return DatabaseAway(
        f"The database cannot be used ({reason.rstrip('.')}), so nothing was changed: try again "
        "when it is back."
    )


def alembic_config(url: URL) -> Config:
    """Alembic's configuration for a database URL."""
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    config.attributes["url"] = url
    return config


def migrate(settings: Settings) -> None:
    """Bring the database to the newest schema; creates the data directory when it is missing.

    One process at a time: of several that begin on a new directory the others wait. Raises Conflict
    for a schema that this version does not know.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (settings.data_dir / "migrate.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            command.upgrade(alembic_config(url_of(settings)), "head")
        except CommandError as error:
            raise Conflict(
                f"The database of {settings.data_dir} is of a newer version of Calibrant "
                f"({error}): use that version, or choose another directory with --data-dir."
            ) from error

"""The migrated schema is the models' schema, on both databases, and can be taken back."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from app.database import alembic_config, engine_for, migrate, session_for, url_of
from app.settings import Settings
from app.tables import metadata


@pytest.fixture(params=["sqlite", "postgresql"])
def installation(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    settings = Settings(data_dir=tmp_path, database_url=url)
    migrate(settings)
    return settings


def test_migrated_schema_equals_the_models(installation: Settings) -> None:
    with engine_for(url_of(installation)).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_downgrade_leaves_nothing_and_upgrade_works_again(installation: Settings) -> None:
    url = url_of(installation)
    command.downgrade(alembic_config(url), "base")
    assert inspect(engine_for(url)).get_table_names() == ["alembic_version"]
    migrate(installation)
    assert set(metadata.tables) <= set(inspect(engine_for(url)).get_table_names())


def test_sqlite_keeps_a_write_ahead_log_and_checks_foreign_keys(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    migrate(settings)
    with session_for(settings) as session:
        connection = session.connection()
        assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert connection.execute(text("PRAGMA foreign_keys")).scalar_one() == 1

"""Alembic's environment: one online run on the URL that ``app.database`` gives."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, pool

from app.database import url_of
from app.settings import get_settings
from app.tables import metadata

url = context.config.attributes.get("url") or url_of(get_settings())
engine = create_engine(url, poolclass=pool.NullPool)

with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=engine.dialect.name == "sqlite",
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()

"""a set's packs are its sources

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SETS = sa.table("calibration_set", sa.column("id", sa.String), sa.column("spec", sa.JSON))
JOBS = sa.table("job", sa.column("id", sa.String), sa.column("spec", sa.JSON))


def upgrade() -> None:
    _rewrite(SETS, lambda spec: _renamed(spec, "packs", "sources"))
    _rewrite(JOBS, lambda spec: _in_job(spec, "packs", "sources"))


def downgrade() -> None:
    _rewrite(SETS, lambda spec: _renamed(spec, "sources", "packs"))
    _rewrite(JOBS, lambda spec: _in_job(spec, "sources", "packs"))


def _rewrite(table: sa.TableClause, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    connection = op.get_bind()
    for row_id, document in connection.execute(sa.select(table.c.id, table.c.spec)).all():
        changed = change(document)
        if changed != document:
            statement = sa.update(table).where(table.c.id == row_id).values(spec=changed)
            connection.execute(statement)


def _renamed(spec: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {new if key == old else key: value for key, value in spec.items()}


def _in_job(spec: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """The compositions inside a job's spec; a path of a built set is left as it is."""
    return {
        key: _renamed(value, old, new)
        if key in ("calibration", "held_out") and isinstance(value, dict)
        else value
        for key, value in spec.items()
    }

"""the catalogue of sources

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
import sqlmodel
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "source",
        sa.Column("name", sqlmodel.sql.sqltypes.AutoString(length=80), nullable=False),
        sa.Column("kind", sqlmodel.sql.sqltypes.AutoString(length=20), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("problem", sqlmodel.sql.sqltypes.AutoString(length=4000), nullable=True),
        sa.Column("fetch_pid", sa.Integer(), nullable=True),
        sa.Column("fetch_started", sa.Float(), nullable=True),
        sa.Column("fetch_read", sa.Integer(), nullable=True),
        sa.Column("created_at", sqlmodel.sql.sqltypes.UTCDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_index(op.f("ix_source_kind"), "source", ["kind"])


def downgrade() -> None:
    op.drop_index(op.f("ix_source_kind"), table_name="source")
    op.drop_table("source")

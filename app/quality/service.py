"""What can be done with gates: look at them, set them."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Session

from app.database import utc_now
from app.quality.gates import Gates
from app.quality.models import QualityGates

ONLY = 1


def get_gates(session: Session) -> Gates:
    """The gates that are set; empty ones on an installation where nobody set any."""
    row = session.get(QualityGates, ONLY)
    return Gates.model_validate(row.document) if row else Gates()


def gates_set_at(session: Session) -> datetime | None:
    """When the gates were last set."""
    row = session.get(QualityGates, ONLY)
    return row.set_at if row else None


def set_gates(session: Session, gates: Gates) -> None:
    """Set the gates anew; every checkpoint is held against them from now on."""
    row = session.get(QualityGates, ONLY) or QualityGates(id=ONLY, document={})
    row.document, row.set_at = gates.model_dump(mode="json"), utc_now()
    session.add(row)
    session.commit()

"""What can be done with base models: add, list, look at, and ask whether a recipe fits."""

from __future__ import annotations

import secrets
from pathlib import Path

from sqlmodel import Session, col, select

from app.base_models.architecture import ModelSummary, describe
from app.base_models.configuration import FP8_BLOCKS, quantized_already
from app.base_models.models import BaseModelRecord
from app.errors import ModelRefused, NotFound
from app.settings import ROOT

DEMO_MODEL = ROOT / "demo" / "model"
DEMO_MODEL_NAME = "MiniMax-M2 demo"


def add_model(session: Session, path: Path) -> BaseModelRecord:
    """Add a model directory, or read one again that was added before. Its name is the
    directory's; the bundled one lies in a directory that says nothing.

    Raises ModelRefused when it is not a model that can be read.
    """
    path = path.expanduser().resolve()
    summary = describe(path)
    record = session.exec(
        select(BaseModelRecord).where(BaseModelRecord.path == str(path))
    ).one_or_none()
    if record is None:
        name = DEMO_MODEL_NAME if path == DEMO_MODEL else summary.name
        record = BaseModelRecord(
            id=secrets.token_hex(6),
            name=name or summary.name,
            path=str(path),
            fingerprint="",
            summary={},
        )
    record.fingerprint = summary.fingerprint
    record.summary = summary.model_dump(mode="json")
    session.add(record)
    session.commit()
    return record


def list_models(session: Session) -> list[BaseModelRecord]:
    """Every model, the newest first."""
    return list(
        session.exec(select(BaseModelRecord).order_by(col(BaseModelRecord.added_at).desc()))
    )


def get_model(session: Session, model_id: str) -> BaseModelRecord:
    """A model by its id. Raises NotFound."""
    record = session.get(BaseModelRecord, model_id)
    if record is None:
        raise NotFound(f"There is no model {model_id!r}.")
    return record


def summary_of(record: BaseModelRecord) -> ModelSummary:
    """What the model's files said when it was added."""
    return ModelSummary.model_validate(record.summary)


def require_usable(record: BaseModelRecord, quantizes: bool) -> None:
    """Raise ModelRefused for a model whose files changed or are gone, or, where it is to be
    quantized, that is already."""
    summary = describe(Path(record.path))
    if summary.fingerprint != record.fingerprint:
        raise ModelRefused(
            f"The files in {record.path} changed since the model was added: add it again."
        )
    if quantizes and summary.quantization and summary.quantization != FP8_BLOCKS:
        raise ModelRefused(quantized_already(record.name, summary.quantization))

"""Every table, imported for its effect on ``SQLModel.metadata``: migrations compare against it."""

from __future__ import annotations

from sqlmodel import SQLModel

from app.base_models.models import BaseModelRecord
from app.calibration.models import CalibrationSet
from app.checkpoints.models import Checkpoint
from app.jobs.models import Job, JobEvent
from app.quality.models import QualityGates
from app.recipes.models import SavedRecipe
from app.sources.models import SourceRecord

TABLES: tuple[type[SQLModel], ...] = (
    BaseModelRecord, CalibrationSet, Job, JobEvent, Checkpoint, SavedRecipe,
    QualityGates, SourceRecord,
)  # fmt: skip
metadata = SQLModel.metadata

"""What can be done with calibration sets: save, list, look at, and ask whether they build."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from sqlmodel import Session, col, func, select

from app.calibration.composition import compose
from app.calibration.index import CorpusIndex, open_index
from app.calibration.models import CalibrationSet
from app.calibration.spec import SetSpec
from app.errors import CompositionRefused, NotFound
from app.settings import Settings
from app.sources.rows import RowsFile, rows_files
from app.sources.starter_corpus import PACKS
from app.validation import validated


def save_set(
    session: Session, spec: SetSpec, imported: dict[str, Any] | None = None
) -> CalibrationSet:
    """Keep a composition, and what was said of the file it came from. The same composition saved
    twice is one set, with what was said of its first file."""
    document = spec.model_dump(mode="json")
    same_name = select(CalibrationSet).where(CalibrationSet.name == spec.name)
    known = [one for one in session.exec(same_name) if one.spec == document]
    saved = known[0] if known else None
    if saved is None:
        saved = CalibrationSet(id=secrets.token_hex(6), name=spec.name, spec=document)
    elif imported is None or saved.imported is not None:
        return saved
    saved.imported = imported
    session.add(saved)
    session.commit()
    return saved


def list_sets(
    session: Session, *, limit: int | None = None, offset: int = 0
) -> list[CalibrationSet]:
    """The sets, the newest first; all of them without a ``limit``."""
    newest = col(CalibrationSet.created_at).desc(), col(CalibrationSet.id)
    return list(session.exec(select(CalibrationSet).order_by(*newest).limit(limit).offset(offset)))


def count_sets(session: Session) -> int:
    """How many sets there are."""
    return session.exec(select(func.count()).select_from(CalibrationSet)).one()


def get_set(session: Session, set_id: str) -> CalibrationSet:
    """A set by its id. Raises NotFound."""
    found = session.get(CalibrationSet, set_id)
    if found is None:
        raise NotFound(f"There is no calibration set {set_id!r}.")
    return found


def spec_of(calibration_set: CalibrationSet) -> SetSpec:
    """The composition of a set. Raises Refused for one that an earlier version kept and this one
    cannot read."""
    return validated(SetSpec, calibration_set.spec)


def index_for(settings: Settings, spec: SetSpec, tokenizer_dir: Path) -> CorpusIndex:
    """The index of a composition's sources for a model; made at the first call for that model.

    Raises CompositionRefused for a source that is not there or that this installation does not
    use, and ModelRefused for a model without a tokenizer or a chat template.
    """
    files = files_of(settings, spec)
    return open_index(files, tokenizer_dir, settings.index_dir, spec.reasoning)


def files_of(settings: Settings, spec: SetSpec) -> list[RowsFile]:
    """The rows files of a composition's sources. Raises CompositionRefused as above."""
    require_in_use(settings, spec)
    return rows_files(spec.sources, settings.sources_dir)


def require_in_use(settings: Settings, spec: SetSpec) -> None:
    """Raises CompositionRefused for a pack that this installation does not use."""
    for source in spec.sources:
        if source in PACKS and source not in settings.corpus_packs:
            raise CompositionRefused(
                f"The pack {source!r} is not in use here (CALIBRANT_CORPUS_PACKS is "
                f"{','.join(settings.corpus_packs)}): take it out of the set."
            )


def require_buildable(settings: Settings, spec: SetSpec, tokenizer_dir: Path) -> CorpusIndex:
    """Refuse a composition that cannot be built for a model, and give the index it was held
    against.

    Raises CompositionRefused and ModelRefused.
    """
    index = index_for(settings, spec, tokenizer_dir)
    compose(spec, index.pool(spec))
    return index

"""Auditing a built set: its rows from disk into the audit, and the report kept beside them.

``audit.json`` follows from the set and the sources it was built of, so it is no part of what names
the set; one of another version of the audit is as if it were not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from pydantic import ValidationError

from app.artifacts import new_file
from app.audit.audit import FORMAT, HeldOut, audit
from app.audit.report import Audit
from app.audit.row import AuditedRow, AuditedTurn
from app.calibration import duplicates
from app.calibration.built_set import BuiltSet
from app.calibration.duplicate_rows import said_by
from app.detection import content as detection
from app.detection.cache import kept_detection
from app.errors import CompositionRefused
from app.facets import Facet
from app.sources.rows import iterate_rows, rows_files

AUDIT = "audit.json"
ALGORITHM = f"{FORMAT}, {detection.ALGORITHM}, {duplicates.ALGORITHM}"
BATCH_ROWS = 256

Progress = Callable[[int, int], None]

_COLUMNS = (
    "row_id", "source", "slice", *(facet.value for facet in Facet), "text", "input_ids",
    "full_tokens", "named_facet", "named_value", "prompt_tokens", "turns", "cut_start", "cut_end",
)  # fmt: skip


def audit_built_set(
    built: BuiltSet,
    *,
    sources_dir: Path,
    index_dir: Path,
    progress: Progress | None = None,
) -> Audit:
    """Audit a set and keep the report beside it; one that is there is given back as it is.

    What texts are found to be is kept in ``index_dir``. ``progress`` gets rows done and rows to
    do. Raises DiskFull.
    """
    known = load_audit(built.directory)
    if known is not None:
        return known
    with kept_detection(index_dir) as detect:
        report = audit(
            _told(audited_rows(built), built.rows, progress),
            detect,
            set_id=built.id,
            name=built.name,
            algorithm=ALGORITHM,
            held_out=_held_out(built, sources_dir),
            asked_in_vain=_asked_in_vain(built),
        )
    with new_file(built.directory / AUDIT) as draft:
        draft.write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return report


def load_audit(directory: Path) -> Audit | None:
    """The report of the built set in a directory; None where it was not audited, or not by this
    version of the audit."""
    try:
        report = Audit.model_validate_json((directory / AUDIT).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return report if report.algorithm == ALGORITHM else None


def audited_rows(built: BuiltSet) -> Iterator[AuditedRow]:
    """The rows of a built set in their order, a batch in memory at a time."""
    with pq.ParquetFile(built.rows_file) as parquet:
        for batch in parquet.iter_batches(BATCH_ROWS, columns=list(_COLUMNS)):
            for entry in batch.to_pylist():
                yield _audited_row(entry)


def _audited_row(entry: Mapping[str, Any]) -> AuditedRow:
    text, cut = entry["text"], (entry["cut_start"], entry["cut_end"])
    facet = entry["named_facet"]
    return AuditedRow(
        row_id=entry["row_id"],
        source=entry["source"],
        slice=entry["slice"],
        tokens=len(entry["input_ids"]),
        full_tokens=entry["full_tokens"],
        turns=tuple(_turn(text, turn, *cut) for turn in entry["turns"]),
        labels={each: entry[each.value] for each in Facet},
        named={Facet(facet): entry["named_value"]} if facet else {},
        has_prompt=entry["prompt_tokens"] > 0,
    )


def _turn(
    text: str, turn: Mapping[str, Any], cut_start: int | None, cut_end: int | None
) -> AuditedTurn:
    start, end = turn["start"], turn["end"]
    lost = (0, 0)
    if cut_start is not None and cut_end is not None:
        lost = max(0, cut_start - start), max(0, min(cut_end, end) - start)
    return AuditedTurn(turn["role"], text[start:end], turn["tokens"], lost)


def _asked_in_vain(built: BuiltSet) -> dict[Facet, list[str]]:
    missing = [short for short in built.shortfalls if not short.available]
    return {
        facet: sorted({short.value for short in missing if short.facet is facet}) for facet in Facet
    }


def _held_out(built: BuiltSet, sources_dir: Path) -> HeldOut | None:
    """The held-out rows of the sources a set was built of, beside its own as they stand there;
    None where those are not here any more, or the set is of that part itself."""
    if built.identity["spec"]["split"] != "calibration":
        return None
    revisions = {source["name"]: source["revision"] for source in built.identity["sources"]}
    try:
        files = rows_files(revisions, sources_dir, revisions)
    except CompositionRefused:
        return None
    row_ids: list[str] = built.table(["row_id"])["row_id"].to_pylist()
    place = {row_id: at for at, row_id in enumerate(row_ids)}
    asked: list[str] = []
    taught = np.empty((len(row_ids), duplicates.PERMUTATIONS), dtype=np.uint32)
    sketches = [duplicates.signatures([])]
    for file in files:
        for batch in iterate_rows(file):
            held = [row for row in batch if row["split"] == "held_out"]
            asked += [row["id"] for row in held]
            sketches.append(duplicates.signatures(map(said_by, held)))
            own = [row for row in batch if row["id"] in place]
            taught[[place[row["id"]] for row in own]] = duplicates.signatures(map(said_by, own))
    return HeldOut(asked, np.concatenate(sketches), taught)


def _told(
    rows: Iterator[AuditedRow], total: int, progress: Progress | None
) -> Iterator[AuditedRow]:
    for done, row in enumerate(rows, start=1):
        yield row
        if progress is not None and (done % 16 == 0 or done == total):
            progress(done, total)

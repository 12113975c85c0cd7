"""Whether the rows a checkpoint is judged on were calibrated on, in the same words or nearly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from app.calibration import duplicates
from app.calibration.built_set import MANIFEST, ROWS
from app.calibration.duplicate_rows import said_in
from app.errors import CompositionRefused


def refuse_leaks(calibration: Path, held_out: Path) -> None:
    """Hold two built sets against each other; what is no set, or of a version that did not keep
    its turns, is let pass.

    Raises CompositionRefused, with the first pair of rows, when a held-out row says what a
    calibration row says.
    """
    if not all(_keeps_turns(place) for place in (calibration, held_out)):
        return
    taught, asked = list(_words(calibration)), list(_words(held_out))
    found = duplicates.leaks(
        duplicates.signatures(words for _, words in taught),
        duplicates.signatures(words for _, words in asked),
    )
    if found:
        first = found[0]
        raise CompositionRefused(
            f"{len(found):,} of {len(asked):,} held-out rows say what a calibration row says, so "
            f"the error measured on them would be too small; the first is row "
            f"{asked[first.held_out][0]}, like row {taught[first.calibration][0]}. Build the "
            "held-out rows with duplicates dropped, or take them from other sources."
        )


def _keeps_turns(place: Path) -> bool:
    is_set = (place / MANIFEST).is_file() and (place / ROWS).is_file()
    return is_set and "turns" in pq.read_schema(place / ROWS).names


def _words(directory: Path) -> Iterator[tuple[str, str]]:
    """Each row's id and what it says, the whole text of a row without turns."""
    columns = ["row_id", "text", "turns", "prompt_tokens"]
    with pq.ParquetFile(directory / ROWS) as parquet:
        for batch in parquet.iter_batches(256, columns=columns):
            for row in batch.to_pylist():
                turns = [
                    (turn["role"], row["text"][turn["start"] : turn["end"]])
                    for turn in row["turns"]
                ]
                said = said_in(turns, has_prompt=row["prompt_tokens"] > 0)
                yield row["row_id"], said or row["text"]

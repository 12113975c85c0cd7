"""The bundled starter corpus: real passages in three licence packs, each row with its facets.

The packs lie in ``demo/corpus/<pack>/rows.parquet`` and are made by
``scripts/make_corpus_packs.py``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow.parquet as pq

Split = Literal["calibration", "held_out"]
Pack = Literal["permissive", "cc-by-sa", "copyleft"]

PACKS: tuple[Pack, ...] = get_args(Pack)
HELD_OUT_PERCENT = 15

CORPUS_DIR = Path(__file__).resolve().parents[2] / "demo" / "corpus"


def split_of(row_id: str) -> Split:
    """The part of the corpus a row belongs to, by a stable hash of its id.

    15 of 100 rows are held out: never calibrated on, only evaluated on.
    """
    digest = hashlib.sha256(row_id.encode()).hexdigest()
    return "held_out" if int(digest[:8], 16) % 100 < HELD_OUT_PERCENT else "calibration"


def pack_file(pack: str) -> Path:
    """The Parquet file of one licence pack."""
    return CORPUS_DIR / pack / "rows.parquet"


def load_rows(
    packs: Iterable[str] = PACKS, split: Split | None = "calibration"
) -> list[dict[str, Any]]:
    """Rows of the chosen packs in the order of their ids, one part of the split or (None) both."""
    rows: list[dict[str, Any]] = []
    for pack in packs:
        rows += pq.read_table(pack_file(pack)).to_pylist()
    wanted = [row for row in rows if split is None or row["split"] == split]
    return sorted(wanted, key=lambda row: row["id"])

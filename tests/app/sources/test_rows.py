from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import CompositionRefused
from app.sources import rows as rows_module
from app.sources.rows import iterate_rows, load_rows, rows_file, rows_files


def test_a_pack_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "pack_file", lambda pack: tmp_path / pack / "rows.parquet")
    with pytest.raises(CompositionRefused, match="has no pack 'permissive'"):
        rows_file("permissive")


def test_a_source_nobody_knows_is_refused() -> None:
    with pytest.raises(CompositionRefused, match="'ultrachat' has no rows here yet"):
        rows_files(["permissive", "ultrachat"])


def test_rows_come_in_batches_and_in_the_order_of_their_ids() -> None:
    file = rows_file("permissive")
    batches = list(iterate_rows(file, ["id"], batch_rows=100))
    assert {len(batch) for batch in batches[:-1]} == {100}
    assert sum(len(batch) for batch in batches) == file.rows
    ids = [row["id"] for row in load_rows([file], split=None)]
    assert ids == sorted(row["id"] for batch in batches for row in batch)

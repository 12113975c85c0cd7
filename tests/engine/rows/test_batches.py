"""Rows fill batches in order, and no token is padding."""

from __future__ import annotations

from dataclasses import replace

from tests.engine.tiny_models import rows_of
from workers.engine.rows.batches import loader_of, pack


def test_whole_rows_fill_a_batch_in_order() -> None:
    packed = pack(rows_of(5, 4, 3, 12, 2), tokens_a_batch=10)
    assert [batch.input_ids.shape[1] for batch in packed] == [9, 3, 12, 2]
    assert packed[0].position_ids[0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert packed[0].row_of_token.tolist() == [0] * 5 + [1] * 4
    assert [batch.row_of_token[0].item() for batch in packed] == [0, 2, 3, 4]


def test_rows_of_one_sequence_stay_together_and_go_on_counting() -> None:
    rows = [
        replace(row, sequence=sequence)
        for row, sequence in zip(rows_of(3, 4, 2, 6, 1), [0, 0, 1, 1, None], strict=True)
    ]
    packed = pack(rows, tokens_a_batch=9)
    assert [batch.position_ids[0].tolist() for batch in packed] == [
        [*range(7)],
        [*range(8), 0],
    ]
    assert packed[1].row_of_token.tolist() == [2] * 2 + [3] * 6 + [4]
    assert [batch.input_ids.shape[1] for batch in pack(rows, 1)] == [7, 8, 1]


def test_the_loader_keeps_order_and_lengths() -> None:
    packed = pack(rows_of(5, 9, 3), tokens_a_batch=9)
    seen = [batch["input_ids"].shape for batch in loader_of(packed)]
    assert seen == [(1, 5), (1, 9), (1, 3)]

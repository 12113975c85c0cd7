"""Packed rows are computed as if each were alone, and no token is padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.engine.tiny_models import DENSE, MOE, rows_of, tiny_model
from workers.engine import batches as batches_module
from workers.engine.batches import hidden_states, loader_of, pack, pack_for, rows_stay_apart


def test_whole_rows_fill_a_batch_in_order() -> None:
    packed = pack(rows_of(5, 4, 3, 12, 2), tokens_a_batch=10)
    assert [batch.input_ids.shape[1] for batch in packed] == [9, 3, 12, 2]
    assert packed[0].position_ids[0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert packed[0].row_of_token.tolist() == [0] * 5 + [1] * 4
    assert [batch.row_of_token[0].item() for batch in packed] == [0, 2, 3, 4]


def test_the_loader_keeps_order_and_lengths() -> None:
    packed = pack(rows_of(5, 9, 3), tokens_a_batch=9)
    seen = [batch["input_ids"].shape for batch in loader_of(packed)]
    assert seen == [(1, 5), (1, 9), (1, 3)]


@pytest.mark.parametrize("name", [*MOE, *DENSE])
def test_a_packed_row_is_as_alone(name: str) -> None:
    model = tiny_model({**MOE, **DENSE}[name]())
    rows = rows_of(7, 11, 5)
    (batch,) = pack(rows, tokens_a_batch=100)
    together = hidden_states(model, batch.input_ids, batch.position_ids)[0]
    for at, row in enumerate(rows):
        ids = torch.from_numpy(row.input_ids.astype(np.int64))[None]
        alone = hidden_states(model, ids, torch.arange(ids.shape[1])[None])[0]
        torch.testing.assert_close(together[batch.row_of_token == at], alone, atol=1e-4, rtol=1e-4)
    assert rows_stay_apart(model)


def test_a_model_that_leaks_gets_one_row_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(MOE["mixtral"]())

    def running_sum(
        _model: object, ids: torch.Tensor, _positions: torch.Tensor
    ) -> torch.Tensor:  # a state carried along the sequence, as linear attention has
        return ids.float().cumsum(dim=1)[..., None]

    monkeypatch.setattr(batches_module, "hidden_states", running_sum)
    assert len(pack_for(model, rows_of(3, 3, 3))) == 3

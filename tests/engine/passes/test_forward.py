"""Packed rows are computed as if each were alone, and a pass layer by layer is the same pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.engine.tiny_models import DENSE, FUSED, MOE, rows_of, tiny_model
from workers.engine.models.architecture import moe_layers
from workers.engine.models.loading import linearize
from workers.engine.passes import forward as forward_module
from workers.engine.passes.forward import (
    hidden_states,
    last_hidden,
    layer_by_layer,
    pack_for,
    rows_stay_apart,
)
from workers.engine.passes.routing import routed_tokens
from workers.engine.rows.batches import PackedBatch, pack

EVERY = {**MOE, **DENSE}


@pytest.mark.parametrize("name", EVERY)
def test_a_packed_row_is_as_alone(name: str) -> None:
    model = tiny_model(EVERY[name]())
    rows = rows_of(7, 11, 5)
    (batch,) = pack(rows, tokens_a_batch=100)
    together = hidden_states(model, batch.input_ids, batch.position_ids)[0]
    for at, row in enumerate(rows):
        ids = torch.from_numpy(row.input_ids.astype(np.int64))[None]
        alone = hidden_states(model, ids, torch.arange(ids.shape[1])[None])[0]
        torch.testing.assert_close(together[batch.row_of_token == at], alone, atol=1e-4, rtol=1e-4)
    assert rows_stay_apart(model)


def test_a_packed_sequence_is_one_text() -> None:
    model = tiny_model(MOE["mixtral"]())
    rows = [replace(row, sequence=0) for row in rows_of(7, 11)]
    (batch,) = pack([*rows, *rows_of(5)], tokens_a_batch=100)
    together = hidden_states(model, batch.input_ids, batch.position_ids)[0][:18]
    ids = torch.from_numpy(np.concatenate([row.input_ids for row in rows]).astype(np.int64))[None]
    alone = hidden_states(model, ids, torch.arange(18)[None])[0]
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_a_model_that_leaks_gets_one_row_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(MOE["mixtral"]())

    def running_sum(_model: object, batches: list[PackedBatch]) -> Iterator[torch.Tensor]:
        for batch in batches:  # a state carried along the sequence, as linear attention has
            yield batch.input_ids.float().cumsum(dim=1)[0, :, None]

    monkeypatch.setattr(forward_module, "last_hidden", running_sum)
    assert len(pack_for(model, rows_of(3, 3, 3))) == 3


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("name", [*EVERY, *FUSED])
def test_layer_by_layer_gives_the_same_states_and_routing(name: str, linear: bool) -> None:
    model = tiny_model({**EVERY, **FUSED}[name]())
    model = linearize(model) if linear and name in MOE else model
    model.config._attn_implementation = "eager"
    batches = pack(rows_of(7, 11, 5, 30), tokens_a_batch=20)
    seen: dict[str, list[tuple[int, int, torch.Tensor]]] = {"whole": [], "layers": []}
    begun: list[int] = []
    told: list[tuple[int, int]] = []

    def before(batch: PackedBatch) -> None:
        begun.append(next(at for at, each in enumerate(batches) if each is batch))

    def routed(way: str) -> list[torch.Tensor]:
        def receive(position: int, indices: torch.Tensor, _: torch.Tensor) -> None:
            seen[way].append((position, begun[-1], indices.clone().cpu()))

        run = last_hidden if way == "whole" else layer_by_layer
        with routed_tokens(model, moe_layers(model), receive):
            progress = None if way == "whole" else lambda *at: told.append(at)
            return [each.cpu() for each in run(model, batches, before, progress)]

    whole, layers = routed("whole"), routed("layers")
    for one, other in zip(whole, layers, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    order = [sorted(each, key=lambda found: found[:2]) for each in seen.values()]
    for (*at, one), (*where, other) in zip(*order, strict=True):
        assert at == where
        assert torch.equal(one, other)
    assert told[-1] == (len(batches), len(batches))
    assert told == sorted(told)


def test_weights_are_where_they_were_after_a_pass_layer_by_layer() -> None:
    model = tiny_model(MOE["minimax_m2"]())
    kinds = {name: type(module._parameters) for name, module in model.named_modules()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    list(layer_by_layer(model, pack(rows_of(5), 20)))
    assert {name: type(module._parameters) for name, module in model.named_modules()} == kinds
    assert model.device.type == "cpu"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

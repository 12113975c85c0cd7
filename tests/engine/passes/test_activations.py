"""What is kept of batches between two layers: a mask once, whatever the number of rows."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from tests.engine.tiny_models import minimax_m2, rows_of, tiny_model
from workers.engine.models.loading import linearize
from workers.engine.passes.activations import Activations
from workers.engine.passes.forward import layer_by_layer
from workers.engine.passes.subgraphs import cut
from workers.engine.rows.batches import PackedBatch, loader_of, pack

LENGTHS = (40, 100, 20, 120, 120)


def causal(tokens: int) -> torch.Tensor:
    return torch.full((1, 1, tokens, tokens), -1.0).triu(1)


def bytes_of(masks: list[torch.Tensor]) -> int:
    return sum({m.data_ptr(): m.untyped_storage().nbytes() for m in masks}.values())


@pytest.mark.parametrize("lengths", [LENGTHS, LENGTHS[::-1], sorted(LENGTHS)])
@pytest.mark.parametrize("nested", [False, True])
def test_masks_alike_are_kept_once(lengths: tuple[int, ...], nested: bool) -> None:
    kept = Activations.empty(len(lengths), torch.device("cpu"))
    for at, tokens in enumerate(lengths):
        mask = causal(tokens)
        kept.update(at, {"mask": {"full": mask} if nested else mask})
    found: list[Any] = [each["mask"]["full"] if nested else each["mask"] for each in kept]
    assert bytes_of(found) == causal(max(lengths)).nbytes
    for mask, tokens in zip(found, lengths, strict=True):
        assert torch.equal(mask, causal(tokens))


def test_a_mask_of_rows_side_by_side_is_its_own() -> None:
    kept = Activations.empty(2, torch.device("cpu"))
    packed = causal(30)
    packed[..., 10:, :10] = -1
    for at, mask in enumerate((causal(40), packed)):
        kept.update(at, {"mask": mask})
    first, second = (each["mask"] for each in kept)
    assert torch.equal(first, causal(40))
    assert torch.equal(second, packed)


def test_a_models_batches_share_their_mask_and_give_the_same() -> None:
    model = linearize(tiny_model(minimax_m2()))
    batches = pack(rows_of(*LENGTHS), 1)
    with cut(model, loader_of(batches)) as stretches, torch.no_grad():
        first, second = stretches[:2]
        for at, inputs in first.inputs():
            first.carry(at, first.forward(inputs))
        values = [each for _, inputs in second.inputs() for each in inputs.values()]
        masks = [v for v in values if isinstance(v, torch.Tensor) and v.ndim == 4]
        assert len(masks) == len(LENGTHS)
        assert bytes_of(masks) == causal(max(LENGTHS)).nbytes
    together = layer_by_layer(model, batches)
    alone = itertools.chain.from_iterable(map(one_by_one(model), batches))
    assert all(torch.equal(*pair) for pair in zip(together, alone, strict=True))


def one_by_one(model: Any) -> Any:
    def run(batch: PackedBatch) -> list[torch.Tensor]:
        return list(layer_by_layer(model, [batch]))

    return run

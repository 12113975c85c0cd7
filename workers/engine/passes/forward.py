"""Forward passes of a whole model over many batches, where its weights are or layer by layer.

A model whose weights rest where they are computed with runs batch by batch. One that rests in RAM
beside an accelerator too small for it, or on disk, runs layer by layer: every decoder layer is
brought over once and all batches go through it, so its weights are moved once a pass, not once a
batch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from workers.engine.device import compute_device
from workers.engine.models.resting import rests_on_disk
from workers.engine.passes.subgraphs import Stretch, brought_over, cut
from workers.engine.rows.batches import PackedBatch, loader_of, pack, vocabulary_of
from workers.engine.rows.calibration_rows import CalibrationRow

PROBE_LENGTH = 8
LEAK_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
LEAK_TOLERANCE_HALF = 3e-2

Before = Callable[[PackedBatch], None]
Progress = Callable[[int, int], None]


def hidden_states(
    model: PreTrainedModel, input_ids: torch.Tensor, position_ids: torch.Tensor
) -> torch.Tensor:
    """The decoder's last hidden states [1, tokens, hidden], without the head's logits."""
    device = model.device
    output = model.base_model(
        input_ids=input_ids.to(device), position_ids=position_ids.to(device), use_cache=False
    )
    return output.last_hidden_state  # type: ignore[no-any-return]


def last_hidden(
    model: PreTrainedModel,
    batches: Sequence[PackedBatch],
    before: Before | None = None,
    progress: Progress | None = None,
) -> Iterator[torch.Tensor]:
    """The last hidden states [tokens, hidden] of each batch, in order.

    ``before`` is called with a batch before anything of it runs, so that hooks know whose tokens
    they see: once a batch, or once a batch and layer.
    """
    if model.device.type == compute_device().type and not rests_on_disk(model):
        yield from _batch_by_batch(model, batches, before, progress)
    else:
        yield from layer_by_layer(model, batches, before, progress)


@torch.no_grad()
def _batch_by_batch(
    model: PreTrainedModel,
    batches: Sequence[PackedBatch],
    before: Before | None,
    progress: Progress | None,
) -> Iterator[torch.Tensor]:
    for done, batch in enumerate(batches, start=1):
        if before is not None:
            before(batch)
        yield hidden_states(model, batch.input_ids, batch.position_ids)[0]
        if progress is not None:
            progress(done, len(batches))


@torch.no_grad()
def layer_by_layer(
    model: PreTrainedModel,
    batches: Sequence[PackedBatch],
    before: Before | None = None,
    progress: Progress | None = None,
) -> Iterator[torch.Tensor]:
    """``last_hidden`` with the weights of one decoder layer at a time on the compute device."""
    decoder = model.base_model
    with brought_over(model, compute_device()), cut(decoder, loader_of(batches)) as stretches:
        for number, stretch in enumerate(stretches):
            outputs = _through(stretch, batches, before)
            for done, output in enumerate(outputs, start=number * len(batches) + 1):
                if number == len(stretches) - 1:
                    yield output["last_hidden_state"][0]
                if progress is not None:
                    progress(done // len(stretches), len(batches))


def _through(
    stretch: Stretch, batches: Sequence[PackedBatch], before: Before | None
) -> Iterator[dict[str, Any]]:
    with stretch.at_hand():
        for at, inputs in stretch.inputs():
            if before is not None:
                before(batches[at])
            output = stretch.forward(inputs)
            if not stretch.last:
                stretch.carry(at, output)
            yield output


@torch.no_grad()
def rows_stay_apart(model: PreTrainedModel) -> bool:
    """Whether a packed row is unchanged by the row before it, tried on two short rows.

    False for models that do not take position ids and for those whose layers carry a state along
    the sequence (linear attention, convolutions).
    """
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return False
    vocabulary = vocabulary_of(model)
    ids = torch.arange(2 * PROBE_LENGTH) % vocabulary
    other = ids.clone()
    other[:PROBE_LENGTH] = (ids[:PROBE_LENGTH] + vocabulary // 2) % vocabulary
    positions = torch.arange(PROBE_LENGTH).repeat(2)[None]
    rows = torch.arange(2).repeat_interleave(PROBE_LENGTH)
    probes = [PackedBatch(candidate[None], positions, rows) for candidate in (ids, other)]
    first, second = (found[PROBE_LENGTH:].float() for found in last_hidden(model, probes))
    tolerance = LEAK_TOLERANCE.get(model.dtype, LEAK_TOLERANCE_HALF)
    return bool((first - second).norm() <= tolerance * first.norm())


def pack_for(
    model: PreTrainedModel, rows: Sequence[CalibrationRow], tokens_a_batch: int = 512
) -> list[PackedBatch]:
    """``pack`` when the model keeps packed rows apart, else one row a batch."""
    return pack(rows, tokens_a_batch if rows_stay_apart(model) else 1)

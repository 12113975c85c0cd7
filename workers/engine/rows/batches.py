"""Rows as batches without a padding token.

Rows have different lengths. Padding them would put padding tokens into the routing counts and
into AWQ's statistics; the default collator of llmcompressor cuts a batch to its shortest row.
Here whole rows are laid one after another in a batch of one sequence, with position ids that
start again at 0 for each row: transformers then masks attention so that a row sees itself only
(``masking_utils.find_packed_sequence_indices``). A model for which that does not hold, found by
trying it (``workers.engine.passes.forward``), gets one row a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from workers.engine.rows.calibration_rows import CalibrationRow


@dataclass(frozen=True)
class PackedBatch:
    """Whole rows side by side: ``input_ids`` and ``position_ids`` int64 [1, tokens],
    ``row_of_token`` int64 [tokens], the index of each token's row in the set."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    row_of_token: torch.Tensor

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """What the model's forward takes."""
        return {"input_ids": self.input_ids, "position_ids": self.position_ids}


def pack(rows: Sequence[CalibrationRow], tokens_a_batch: int) -> list[PackedBatch]:
    """The rows in their order, as many whole rows a batch as fit ``tokens_a_batch``.

    Rows that the set packs into one sequence stay together and see those before them. A row or
    sequence longer than that gets a batch of its own. ``tokens_a_batch=1`` gives one a batch.
    """
    batches: list[PackedBatch] = []
    pending: list[list[int]] = []
    filled = 0
    for sequence in _sequences(rows):
        length = sum(len(rows[index].input_ids) for index in sequence)
        if pending and filled + length > tokens_a_batch:
            batches.append(_batch_of(rows, pending))
            pending, filled = [], 0
        pending.append(sequence)
        filled += length
    if pending:
        batches.append(_batch_of(rows, pending))
    return batches


def _sequences(rows: Sequence[CalibrationRow]) -> Iterator[list[int]]:
    """The indices of the rows of each sequence; a row that is not packed is one by itself."""
    numbered = enumerate(row.sequence for row in rows)
    # the index tells rows apart that are not packed
    for _, members in groupby(numbered, lambda pair: pair if pair[1] is None else pair[1:]):
        yield [index for index, _ in members]


def _batch_of(rows: Sequence[CalibrationRow], sequences: list[list[int]]) -> PackedBatch:
    indices = [index for sequence in sequences for index in sequence]
    lengths = [len(rows[index].input_ids) for index in indices]
    ids = np.concatenate([rows[index].input_ids for index in indices]).astype(np.int64)
    positions = np.concatenate(
        [np.arange(sum(len(rows[index].input_ids) for index in each)) for each in sequences]
    )
    return PackedBatch(
        input_ids=torch.from_numpy(ids)[None],
        position_ids=torch.from_numpy(positions)[None],
        row_of_token=torch.from_numpy(np.repeat(np.asarray(indices, dtype=np.int64), lengths)),
    )


def loader_of(batches: Sequence[PackedBatch]) -> DataLoader[dict[str, torch.Tensor]]:
    """The batches as the DataLoader llmcompressor takes: in order, no sampler, no collator (its
    own sampler is unseeded)."""
    inputs = [batch.inputs for batch in batches]
    return DataLoader(inputs, batch_size=None, shuffle=False)  # type: ignore[arg-type]


def vocabulary_of(model: PreTrainedModel) -> int:
    """How many token ids the model has an embedding for."""
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, torch.Tensor)
    return int(weight.shape[0])

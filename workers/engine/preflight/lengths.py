"""What memory and time depend on of a job's rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workers.engine.rows.batches import PackedBatch

# What a held-out part is assumed to have, or as many as the set where that has fewer.
HELD_OUT_TOKENS = 45_000


@dataclass(frozen=True)
class Lengths:
    """What memory and time depend on of the rows: their ``tokens``, those of the ``longest`` batch,
    the ``pairs`` of tokens that attention holds against each other, and the elements of the
    ``masks`` that are kept, one for all rows that are alone in their batch."""

    tokens: int
    longest: int
    pairs: int
    masks: int

    @property
    def held_out(self) -> int:
        """The tokens assumed of the held-out rows, which are not known before they are built."""
        return min(HELD_OUT_TOKENS, self.tokens)

    @classmethod
    def of(cls, batches: Sequence[PackedBatch]) -> Lengths:
        """The lengths of rows as a job batches them."""
        sizes = [len(batch.row_of_token) for batch in batches]
        alone = [int(batch.position_ids.max()) + 1 == len(batch.row_of_token) for batch in batches]
        squares = [size * size for size in sizes]
        one = max((n for n, each in zip(squares, alone, strict=True) if each), default=0)
        others = sum(n for n, each in zip(squares, alone, strict=True) if not each)
        return cls(sum(sizes), max(sizes, default=0), sum(squares), one + others)

    @classmethod
    def assumed(cls, tokens: int, tokens_a_batch: int) -> Lengths:
        """Short rows, as many a batch as fit."""
        pairs = tokens * tokens_a_batch
        return cls(tokens, tokens_a_batch, pairs, pairs)

"""Where a row that is too long is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Truncation = Literal["tail", "head", "middle"]


@dataclass(frozen=True)
class Cut:
    """The tokens a row loses: from ``start`` to ``end`` of its whole length. An empty cut is
    none."""

    start: int
    end: int

    @property
    def tokens(self) -> int:
        """How many are lost."""
        return self.end - self.start

    def kept(self, items: Sequence[int]) -> list[int]:
        """The items, one a token, that stay."""
        return [*items[: self.start], *items[self.end :]]


def cut_of(tokens: int, max_length: int, truncation: Truncation) -> Cut:
    """What a row of ``tokens`` loses at ``max_length``.

    Of a row cut in its middle the larger half that stays is the first.
    """
    lost = max(0, tokens - max_length)
    if not lost:
        return Cut(tokens, tokens)
    start = {"tail": max_length, "head": 0, "middle": max_length - max_length // 2}[truncation]
    return Cut(start, start + lost)

"""What batches carry from one subgraph to the next.

A mask of T × T numbers is among it: of rows of 8,192 tokens a quarter of a gigabyte each in
float32, more than everything else that is kept of them. But the masks of rows that stand alone in
their batch are alike but for their size: each is the corner of the longest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from llmcompressor.pipelines.cache import IntermediatesCache


class Activations(IntermediatesCache):
    """llmcompressor's cache, in which a mask that is a corner of another shares its memory."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._longest: dict[str, torch.Tensor] = {}

    def update(self, batch_index: int, values: dict[str, Any]) -> None:
        """Keep values of a batch."""
        super().update(batch_index, values)
        for name in values:
            for place, held in _masks(name, self.batch_intermediates[batch_index][name]):
                self._share(place, held)

    def _share(self, place: str, held: Any) -> None:
        mask: torch.Tensor = held.value
        longest = self._longest.get(place)
        if longest is None:
            self._longest[place] = mask
        elif _is_corner(mask, longest):
            held.value = _corner(longest, mask.shape[-1])
        elif _is_corner(longest, mask):
            self._longest[place] = mask
            self._move(place, longest, mask)

    def _move(self, place: str, shorter: torch.Tensor, longer: torch.Tensor) -> None:
        """Let the masks that share memory with ``shorter`` share it with ``longer``."""
        for batch in self.batch_intermediates:
            for name, value in batch.items():
                for found, held in _masks(name, value):
                    if found == place and held.value.data_ptr() == shorter.data_ptr():
                        held.value = _corner(longer, held.value.shape[-1])


def _masks(name: str, held: Any) -> Iterator[tuple[str, Any]]:
    """The masks [1, 1, tokens, tokens] in a kept value, each with where it is."""
    value = held.value
    if isinstance(value, torch.Tensor):
        if value.ndim == 4 and value.shape == (1, 1, value.shape[-1], value.shape[-1]):
            yield name, held
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _masks(f"{name}.{key}", part)


def _corner(mask: torch.Tensor, tokens: int) -> torch.Tensor:
    return mask[..., :tokens, :tokens]


def _is_corner(mask: torch.Tensor, longer: torch.Tensor) -> bool:
    tokens = mask.shape[-1]
    return tokens <= longer.shape[-1] and torch.equal(mask, _corner(longer, tokens))

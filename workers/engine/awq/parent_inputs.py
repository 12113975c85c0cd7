"""What the parent of a mapping was given while a layer was calibrated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from llmcompressor.pipelines.cache import IntermediatesCache
from torch import nn


class ParentCaches(dict[nn.Module, IntermediatesCache]):
    """The cached inputs of mappings' ``parents``, one a mapping. llmcompressor lets go of a
    parent's after each of its mappings; here they stay until the last one (DeepSeek-V3.2 has two
    in its attention)."""

    def __init__(self, parents: Iterable[nn.Module]) -> None:
        super().__init__()
        self._uses = Counter(parents)

    def __delitem__(self, parent: nn.Module) -> None:
        self._uses[parent] -= 1
        if self._uses[parent] <= 0:
            super().__delitem__(parent)


class ParentInputs(IntermediatesCache):
    """Cached inputs of a mapping's parent; pins memory only where that can speed up a copy. A
    sample of them is taken once, also for a parent of several mappings."""

    _is_sample = False

    def pin_memory(self, batch_index: int, input_names: list[str] | None = None) -> None:
        """Pin one batch's tensors, if there is an accelerator (torch raises otherwise)."""
        if torch.accelerator.is_available():
            super().pin_memory(batch_index, input_names)

    def merge(self, tokens: int, keep: float = 1.0) -> None:
        """Join batches along the tokens' dimension into ones of about ``tokens`` tokens, of which
        a sample of the share ``keep`` stays, the same one in every run.

        Only for parents that treat every token by itself. Does nothing when an input other than
        the hidden states is a tensor.
        """
        keep = 1.0 if self._is_sample else keep
        self._is_sample |= keep < 1
        generator = torch.Generator().manual_seed(0)
        merged: list[dict[str, Any]] = []
        pending: list[dict[str, Any]] = []
        held = 0
        for batch in self:
            tensors = [value for value in batch.values() if isinstance(value, torch.Tensor)]
            if len(tensors) != 1:
                return
            pending.append(_sampled(batch, keep, generator))
            held += _tokens_of(pending[-1])
            if held >= tokens:
                merged.append(_joined(pending))
                pending, held = [], 0
        if pending:
            merged.append(_joined(pending))
        self.batch_intermediates.clear()
        for batch in merged:
            self.append(batch)

    def sample(self, every: int) -> None:
        """Keep every so many-th batch, the first one always."""
        if not self._is_sample:
            self.batch_intermediates = self.batch_intermediates[::every]
        self._is_sample = True


def _hidden_of(batch: dict[str, Any]) -> tuple[str, torch.Tensor]:
    return next((k, v) for k, v in batch.items() if isinstance(v, torch.Tensor))


def _tokens_of(batch: dict[str, Any]) -> int:
    hidden = _hidden_of(batch)[1]
    return hidden.numel() // hidden.shape[-1]


def _sampled(batch: dict[str, Any], keep: float, generator: torch.Generator) -> dict[str, Any]:
    if keep >= 1:
        return batch
    name, hidden = _hidden_of(batch)
    flat = hidden.flatten(0, -2)
    chosen = torch.randperm(len(flat), generator=generator)[: max(1, round(keep * len(flat)))]
    sample = flat.index_select(0, chosen.sort().values.to(flat.device))
    return {**batch, name: sample[None] if hidden.ndim == 3 else sample}


def _joined(batches: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first = batches[0]
    if len(batches) == 1:
        return first
    name, hidden = _hidden_of(first)
    flat = torch.cat([_hidden_of(batch)[1].flatten(0, -2) for batch in batches])
    return {**first, name: flat[None] if hidden.ndim == 3 else flat}

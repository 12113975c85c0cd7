"""Stock llmcompressor's AWQ, as the reference a recipe can choose and the tests compare with.

The mappings are the tree's, given to it as exact names; nothing else is changed but three
faults: its crash without an accelerator, the attention mask its tracing loses, and that it lets go
of what a parent of two mappings was given after the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from compressed_tensors.utils import patch_attr
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.modifiers.transform.awq.mappings import (
    AWQMapping,
    ResolvedMapping,
)
from llmcompressor.pipelines.cache import IntermediatesCache
from torch import nn

from app.jobs.events import MappingSearched
from workers.engine.awq.parent_inputs import ParentCaches
from workers.engine.awq.smoothing import ScaleLog
from workers.engine.models.architecture import layer_index
from workers.engine.plan.mappings import TreeMapping


class ToldAWQModifier(AWQModifier):
    """Stock's modifier; ``tell`` receives its losses, which it would only log, and ``scales`` what
    it applies."""

    tell: Callable[[Any], None]
    scales: ScaleLog

    def _setup_activation_cache_hooks(self) -> None:
        self._parent_args_cache = ParentCaches(each.parent for each in self._resolved_mappings)
        super()._setup_activation_cache_hooks()

    def _compute_best_scale(
        self,
        mapping: ResolvedMapping,
        fp16_outputs: list[torch.Tensor],
        orig_layer_weights: dict[nn.Module, torch.Tensor],
    ) -> torch.Tensor:
        best = super()._compute_best_scale(mapping, fp16_outputs, orig_layer_weights)
        self.scales.note(mapping.smooth_name, best)
        metrics = self._error_metrics[-1]
        self.tell(
            MappingSearched(
                layer=layer_index(mapping.smooth_name) or 0,
                smooth_layer=mapping.smooth_name,
                balance_layers=len(mapping.balance_layers),
                initial_error=metrics["initial_error"],
                best_error=metrics["best_error"],
            )
        )
        return best


def stock_modifier(
    mappings: Sequence[TreeMapping],
    grid: int,
    duo_scaling: bool,
    tell: Callable[[Any], None],
    scales: ScaleLog,
) -> ToldAWQModifier:
    """Stock AWQ over the tree's mappings, ``grid`` as its ``n_grid``."""
    exact = [
        AWQMapping(f"re:{re.escape(m.smooth)}$", [f"re:{re.escape(b)}$" for b in m.balance])
        for m in mappings
    ]
    return ToldAWQModifier(
        mappings=exact, n_grid=grid, duo_scaling=duo_scaling, tell=tell, scales=scales
    )


@contextmanager
def stock_on_a_cpu() -> Iterator[None]:
    """Mend stock's crash without an accelerator: ``IntermediatesCache.pin_memory``. What is mended
    in its tracing is in ``workers.engine.passes.subgraphs``."""
    if torch.accelerator.is_available():
        yield
        return
    with patch_attr(IntermediatesCache, "pin_memory", lambda *_, **__: None):
        yield

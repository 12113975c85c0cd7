"""The scales of the up → down products of one layer's experts, some experts at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from llmcompressor.modifiers.transform.awq.mappings import ResolvedMapping
from torch import nn
from transformers import PreTrainedModel

from app.base_models.configuration import router_kind
from workers.engine.awq.expert_statistics import (
    RouterScores,
    TokenChoice,
    down_statistics,
    routed_counts,
    topped_up,
)
from workers.engine.awq.experts_forward import ExpertsInput
from workers.engine.awq.gram import GridPoint, InputStatistics, search_scales
from workers.engine.awq.smoothing import args_of, weight_of
from workers.engine.models.architecture import MoeLayer

GRAM_BYTES = 1 << 20
ACCELERATOR_GRAM_BYTES = 1 << 30

Means = Callable[[list[nn.Module]], torch.Tensor]


@dataclass(frozen=True)
class Searched:
    """The best scales [in] of one product, and its loss before and after."""

    mapping: ResolvedMapping
    scales: torch.Tensor
    initial_error: float
    best_error: float


class ExpertsSearch:
    """The products of one experts module. ``host`` is the module that is run again to see what
    the experts are given; ``not_finite`` names products whose activations were not finite."""

    def __init__(self, model: PreTrainedModel, layer: MoeLayer) -> None:
        self.layer = layer
        self.experts: Any = model.get_submodule(layer.experts_name)
        self.members: dict[int, ResolvedMapping] = {}
        self.not_finite: list[str] = []
        self.host: nn.Module = model.get_submodule(layer.block_name)
        self._router: Any = model.get_submodule(layer.router_name)
        kind = router_kind(model.config.get_text_config().to_dict(), has_bias=False)
        self._softmax = kind != "sigmoid"

    def add(self, mapping: ResolvedMapping) -> None:
        """Take one expert's product: its parent is ``<experts>.<number>.down_proj``."""
        number = mapping.parent_name.removeprefix(f"{self.layer.experts_name}.").split(".")[0]
        self.members[int(number)] = mapping

    def choose_host(self, cached: Sequence[nn.Module]) -> None:
        """Prefer a module whose inputs are cached anyway to the experts' block."""
        holders = [each for each in cached if any(m is self.experts for m in each.modules())]
        self.host = holders[0] if holders else self.host

    def count(self, inputs: Sequence[ExpertsInput]) -> list[int]:
        """The tokens routed to each expert."""
        counts: list[int] = routed_counts(inputs, self.layer.experts).tolist()
        return counts

    def run(
        self,
        inputs: Sequence[ExpertsInput],
        choice: TokenChoice,
        grid: Sequence[GridPoint],
        means: Means,
    ) -> list[Searched]:
        """Search every product that saw a token; one that saw none is left as it is, and so
        rounded to nearest."""
        added = {}
        if choice.statistics == "routed" and choice.floor:
            counts = routed_counts(inputs, self.layer.experts)
            added = topped_up(inputs, counts, choice.floor, self._scores())
        self.not_finite.clear()
        found: list[Searched] = []
        for members in self.groups():
            gathered = down_statistics(self.experts, members, inputs, choice, added)
            found.extend(self._search(members, list(gathered), grid, means))
        return found

    def _scores(self) -> RouterScores:
        bias = getattr(self._router, "bias", None)
        return RouterScores(
            weight=weight_of(self._router),
            bias=bias if isinstance(bias, torch.Tensor) and bias.ndim == 1 else None,
            normalised=self._softmax,
        )

    def groups(self) -> Iterator[list[int]]:
        """Experts that are searched together: alike, and few enough for their Gram matrices."""
        alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for number, mapping in self.members.items():
            weight = weight_of(mapping.parent)
            alike[weight.shape, args_of(mapping.parent).model_dump_json()].append(number)
        for (shape, _), numbers in alike.items():
            on_cpu = weight_of(self.members[numbers[0]].parent).device.type == "cpu"
            limit = GRAM_BYTES if on_cpu else ACCELERATOR_GRAM_BYTES
            size = max(1, limit // (4 * shape[1] * shape[1]))
            for start in range(0, len(numbers), size):
                yield numbers[start : start + size]

    def _search(
        self,
        members: list[int],
        gathered: list[InputStatistics],
        grid: Sequence[GridPoint],
        means: Means,
    ) -> Iterator[Searched]:
        seen = []
        for number, statistics in zip(members, gathered, strict=True):
            if not int(statistics.count):
                continue
            if not bool(statistics.gram.isfinite().all()):
                self.not_finite.append(self.members[number].smooth_name)
                continue
            seen.append((self.members[number], statistics))
        if not seen:
            return
        linears = [mapping.parent for mapping, _ in seen]
        found = search_scales(
            weights=torch.stack([weight_of(linear) for linear in linears]),
            weight_means=torch.stack([means([linear]) for linear in linears]),
            statistics=[statistics for _, statistics in seen],
            args=args_of(linears[0]),
            grid=grid,
        )
        initial, best = found.initial_error.tolist(), found.best_error.tolist()
        for at, (mapping, _) in enumerate(seen):
            if best[at] != float("inf"):
                yield Searched(mapping, found.scales[at], initial[at], best[at])

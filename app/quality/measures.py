"""A job's errors as rows of tables: by layer, by router, by slice, by expert, by scale search."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from pydantic import BaseModel

from app.jobs.models import JobEvent
from app.jobs.spec import LayerReport, ModuleReport

EXPERT = re.compile(r"\.experts\.(\d+)\.")


class ExpertError(BaseModel):
    """The weight error of one expert over its quantized weights, ``weights`` of them: sums of
    squares where they were kept, else the mean of its modules' errors."""

    layer: int
    expert: int
    weights: int
    relative_mse: float
    sqnr_db: float


class KindError(BaseModel):
    """The weight error of one layer's modules of a kind (``experts.*.down_proj``) together,
    ``weights`` of them, and the worst of them."""

    layer: int
    kind: str
    weights: int
    relative_mse: float
    worst: str
    worst_mse: float


class MappingError(BaseModel):
    """AWQ's loss of one mapping before and after its scale search: the mean squared difference of
    the parent's output. ``ratio`` is after over before, None where there was nothing to lose."""

    layer: int
    smooth_layer: str
    balance_layers: int
    initial_error: float
    best_error: float
    ratio: float | None


class SearchOfLayer(BaseModel):
    """A layer's mappings together: their losses added up before and after the search."""

    layer: int
    mappings: int
    initial_error: float
    best_error: float


def errors_by_expert(modules: Iterable[ModuleReport]) -> list[ExpertError]:
    """The error of every expert, by layer and number; routed experts only."""
    members: dict[tuple[int, int], list[ModuleReport]] = defaultdict(list)
    for module in modules:
        if found := EXPERT.search(module.module):
            members[module.layer, int(found[1])].append(module)
    return [
        ExpertError(
            layer=layer,
            expert=expert,
            weights=len(reports),
            relative_mse=(error := joint_error(reports)),
            sqnr_db=in_decibels(error),
        )
        for (layer, expert), reports in sorted(members.items())
    ]


def errors_by_kind(modules: Iterable[ModuleReport]) -> list[KindError]:
    """The error of every kind of weight in every layer, by layer and kind."""
    members: dict[tuple[int, str], list[ModuleReport]] = defaultdict(list)
    for module in modules:
        members[module.layer, kind_of(module.module)].append(module)
    return [
        KindError(
            layer=layer,
            kind=kind,
            weights=len(reports),
            relative_mse=joint_error(reports),
            worst=(worst := max(reports, key=lambda report: report.relative_mse)).module,
            worst_mse=worst.relative_mse,
        )
        for (layer, kind), reports in sorted(members.items())
    ]


def kind_of(module: str) -> str:
    """A module's name without what tells it from others of its kind: the layer and the expert."""
    numberless = EXPERT.sub(".experts.*.", module).split(".")
    return ".".join(numberless[-3:] if "*" in numberless else numberless[-2:])


def joint_error(reports: Sequence[ModuleReport]) -> float:
    """The relative MSE of some weights together: noise over signal, both added up. Without the
    signals, in results of before they were kept, the mean of their errors."""
    signals = [report.signal for report in reports]
    known = [signal for signal in signals if signal is not None]
    if len(known) < len(signals) or not sum(known):
        return sum(report.relative_mse for report in reports) / len(reports)
    noise = sum(r.relative_mse * s for r, s in zip(reports, known, strict=True))
    return noise / sum(known)


def in_decibels(relative_mse: float) -> float:
    """A relative MSE as signal to quantization noise ratio in dB; 200 for no error at all."""
    return -10 * math.log10(max(relative_mse, 1e-20))


def mapping_errors(events: Iterable[JobEvent]) -> list[MappingError]:
    """The scale searches a job has told of, in its order."""
    return [_mapping_error(event) for event in events if event.type == "mapping"]


def searches_by_layer(mappings: Iterable[MappingError]) -> list[SearchOfLayer]:
    """The searches of each layer together."""
    by_layer: dict[int, list[MappingError]] = defaultdict(list)
    for mapping in mappings:
        by_layer[mapping.layer].append(mapping)
    return [
        SearchOfLayer(
            layer=layer,
            mappings=len(found),
            initial_error=sum(each.initial_error for each in found),
            best_error=sum(each.best_error for each in found),
        )
        for layer, found in sorted(by_layer.items())
    ]


class LayerRow(LayerReport):
    """A layer's errors and how far its router moved, None where it has none."""

    router_same: float | None = None
    router_kl: float | None = None


def _mapping_error(event: JobEvent) -> MappingError:
    names = ("layer", "smooth_layer", "balance_layers", "initial_error", "best_error")
    found = {name: event.data[name] for name in names}
    initial, best = found["initial_error"], found["best_error"]
    return MappingError(**found, ratio=best / initial if initial else None)

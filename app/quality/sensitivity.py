"""Which weights to keep in more bits under a size budget, from the errors a job measured.

What is measured: the relative error of every quantized weight, and the error of every decoder
layer's output. What is predicted: a layer's output error is divided among its weights in proportion
to their relative errors (noise of independent roundings adds up); 8 bits leave the share
((2^b - 1) / (2^8 - 1))² of the noise of b bits, because the step is that much smaller; weights left
as they came have none. Sizes are exact, from shapes and from the types in the source's files: left
as it came, a weight takes two bytes in BF16, four in float32 and one in float8. Weights are taken
greedily by error removed for each byte added, which is the continuous knapsack's best order
(Dantzig 1957); the last one that does not fit is passed over for smaller ones.

Weights are moved together where serving engines fuse them into one matrix and refuse different
schemes in it: the routed experts of a layer, q, k and v, gate and up. That is why a down projection
of routed experts is not kept alone, though it often loses most.
"""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from app.errors import Refused
from app.formatting import counted
from app.jobs.spec import LayerReport, ModuleReport
from app.quality.measures import joint_error
from app.recipes.packed_size import packed_bytes, scale_bytes_of
from app.recipes.schema import Group, Recipe

# Stands for weights left as they came, whatever their type.
PLAIN_BITS = 16
MORE_BITS = 8
HALF_BYTES = 2.0
# Read in one matrix by vLLM and SGLang (packed_modules_mapping, fused experts).
FUSED = (
    (re.compile(r"^(.*\.experts)\.\d+\.(gate_proj|up_proj|down_proj|w1|w2|w3)$"),
     r"\.\d+\.(gate_proj|up_proj|down_proj|w1|w2|w3)$"),
    (re.compile(r"^(.*)\.[qkv]_proj$"), r"\.[qkv]_proj$"),
    (re.compile(r"^(.*)\.(?:gate|up)_proj$"), r"\.(gate|up)_proj$"),
)  # fmt: skip


class SensitivityRefused(Refused):
    """A job whose measurements are not enough for a proposal."""


@dataclass(frozen=True, eq=False)
class Unit:
    """Weights of one layer that are served together. ``kind`` is their pattern after the layer's
    number, ``error`` their share of the layer's output error, ``sizes`` bytes by bits."""

    prefix: str
    layer: int
    kind: str
    group: Group
    weights: int
    relative_mse: float
    error: float
    sizes: Mapping[int, int]

    @property
    def name(self) -> str:
        """What a person reads: ``layer 3, mlp.experts``."""
        return f"layer {self.layer}, {readable(self.kind)}"

    def error_at(self, bits: int) -> float:
        """The predicted error with so many bits a weight."""
        if bits == self.group.bits:
            return self.error
        if bits == PLAIN_BITS:
            return 0.0
        return self.error * float((2**self.group.bits - 1) / (2**bits - 1)) ** 2


@dataclass(frozen=True)
class Step:
    """One unit given more bits: what it adds and what it is predicted to remove, and where the
    checkpoint then stands."""

    unit: Unit
    bits_before: int
    bits_after: int
    bytes_added: int
    error_removed: float
    size: int
    error_left: float


@dataclass(frozen=True)
class Proposal:
    """The steps that fit the budget, in their order, and the recipe that takes them. ``curve`` are
    all steps without a budget; errors are sums over layers."""

    steps: list[Step]
    curve: list[Step]
    size_now: int
    error_now: float
    recipe: Recipe
    is_of_outputs: bool
    bits: dict[Unit, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The predicted size of the checkpoint in bytes."""
        return self.steps[-1].size if self.steps else self.size_now

    @property
    def error_left(self) -> float:
        """The predicted error that is left."""
        return self.steps[-1].error_left if self.steps else self.error_now

    @property
    def smallest(self) -> Step | None:
        """Of the steps that can be the first, the one that adds least; None where there is none."""
        firsts = (step for step in self.curve if step.bits_before == step.unit.group.bits)
        return min(firsts, key=lambda step: step.bytes_added, default=None)


def propose(
    recipe: Recipe,
    modules: Sequence[ModuleReport],
    layers: Sequence[LayerReport],
    size_now: int,
    budget: int,
    stored: Mapping[str, float],
) -> Proposal:
    """More bits where they remove most error a byte, until a checkpoint of ``size_now`` bytes
    would be larger than ``budget``. ``stored`` is the bytes a number of each module takes in the
    source, two for those it does not name.

    Raises SensitivityRefused when the job kept no shapes, or the budget is below its size.
    """
    if budget < size_now:
        raise SensitivityRefused(
            f"The budget is {counted(budget, 'byte')} and the checkpoint has {size_now:,} already: "
            "give a larger one. For a smaller checkpoint write a recipe of fewer bits."
        )
    outputs = _output_errors(layers)
    units = units_of(recipe, modules, outputs, stored)
    steps, bits = _greedy(units, size_now, budget)
    curve, _ = _greedy(units, size_now, None)
    return Proposal(
        steps=steps,
        curve=curve,
        size_now=size_now,
        error_now=sum(unit.error for unit in units),
        recipe=_recipe(recipe, units, bits),
        is_of_outputs=bool(outputs),
        bits=bits,
    )


def units_of(
    recipe: Recipe,
    modules: Sequence[ModuleReport],
    outputs: Mapping[int, float],
    stored: Mapping[str, float],
) -> list[Unit]:
    """The weights a recipe quantizes, by layer and by what is served together. ``outputs`` are the
    layers' measured output errors; without them a unit's error is that of its weights. ``stored``
    as for :func:`propose`."""
    members: dict[tuple[str, int, str], list[ModuleReport]] = defaultdict(list)
    for module in modules:
        if module.rows is None or module.columns is None:
            raise SensitivityRefused(
                "The job is older than the keeping of shapes beside errors: quantize again."
            )
        prefix, kind = _split(module)
        members[prefix, module.layer, kind].append(module)
    errors = {key: joint_error(reports) for key, reports in members.items()}
    sums: dict[int, float] = defaultdict(float)
    for (_, layer, _), error in errors.items():
        sums[layer] += error
    found = []
    for key, reports in members.items():
        prefix, layer, kind = key
        group = _group_of(recipe, reports[0].module)
        share = errors[key] / sums[layer] if sums[layer] else 0.0
        error = outputs[layer] * share if outputs else errors[key]
        sizes = _sizes(reports, group, stored)
        found.append(Unit(prefix, layer, kind, group, len(reports), errors[key], error, sizes))
    return found


def readable(kind: str) -> str:
    """A kind's pattern as a person reads it: ``mlp.experts``, ``self_attn q, k and v``."""
    text = kind.replace("\\", "").removesuffix("$").lstrip(".")
    for raw, words in (
        (".d+.(gate_proj|up_proj|down_proj|w1|w2|w3)", ""),
        (".[qkv]_proj", " q, k and v"),
        (".(gate|up)_proj", " gate and up"),
    ):
        text = text.replace(raw, words)
    return text


def _output_errors(layers: Sequence[LayerReport]) -> dict[int, float]:
    """The layers' output errors, on held-out rows where all have them, else on calibration rows;
    empty where some layer has neither."""
    for name in ("held_out_relative_mse", "output_relative_mse"):
        errors = {layer.layer: getattr(layer, name) for layer in layers}
        if errors and all(error is not None for error in errors.values()):
            return errors
    return {}


def _split(module: ModuleReport) -> tuple[str, str]:
    """What stands before the layer's number, and the pattern of what stands after it."""
    prefix, _, rest = module.module.partition(f".{module.layer}.")
    for fused, pattern in FUSED:
        if found := fused.match(rest):
            return prefix, rf"\.{re.escape(found[1])}{pattern}"
    return prefix, rf"\.{re.escape(rest)}$"


def _group_of(recipe: Recipe, module: str) -> Group:
    for group in recipe.groups:
        if any(re.match(target, module) for target in group.targets):
            return group
    raise SensitivityRefused(f"No group of the recipe {recipe.name} matches {module}.")


def _sizes(
    reports: Sequence[ModuleReport], group: Group, stored: Mapping[str, float]
) -> dict[int, int]:
    """Bytes by bits; without 8 bits where the weights as they came are no larger."""
    weights = [
        (one.rows or 0, one.columns or 0, stored.get(one.module, HALF_BYTES)) for one in reports
    ]
    plain = round(sum(rows * columns * each for rows, columns, each in weights))

    def packed(how: Group) -> int:
        return sum(
            packed_bytes(rows, columns, how, scale_bytes_of(each))
            for rows, columns, each in weights
        )

    sizes = {group.bits: packed(group), PLAIN_BITS: plain}
    if group.bits < MORE_BITS and group.type == "int":
        larger = packed(group.model_copy(update={"bits": MORE_BITS}))
        if larger < plain:
            sizes[MORE_BITS] = larger
    return sizes


def _greedy(
    units: Sequence[Unit], size_now: int, budget: int | None
) -> tuple[list[Step], dict[Unit, int]]:
    """Steps by error removed a byte, each unit's own in order of bits."""
    bits = dict(enumerate(unit.group.bits for unit in units))
    queue = [entry for at, unit in enumerate(units) if (entry := _next(at, unit, bits[at]))]
    heapq.heapify(queue)
    size, left, steps = size_now, sum(unit.error for unit in units), []
    while queue:
        _, at, wanted = heapq.heappop(queue)
        unit = units[at]
        added = unit.sizes[wanted] - unit.sizes[bits[at]]
        if budget is not None and size + added > budget:
            continue
        removed = unit.error_at(bits[at]) - unit.error_at(wanted)
        size, left = size + added, left - removed
        steps.append(Step(unit, bits[at], wanted, added, removed, size, max(0.0, left)))
        bits[at] = wanted
        if entry := _next(at, unit, wanted):
            heapq.heappush(queue, entry)
    return steps, {units[at]: found for at, found in bits.items()}


def _next(at: int, unit: Unit, bits: int) -> tuple[float, int, int] | None:
    """A unit's next step for the queue: minus the error removed a byte, its place, its bits."""
    larger = [wanted for wanted in sorted(unit.sizes) if wanted > bits]
    if not larger or unit.error <= 0:
        return None
    added = unit.sizes[larger[0]] - unit.sizes[bits]
    removed = unit.error_at(bits) - unit.error_at(larger[0])
    return (-removed / max(added, 1), at, larger[0])


def _recipe(recipe: Recipe, units: Sequence[Unit], bits: Mapping[Unit, int]) -> Recipe:
    """The recipe with its groups narrowed to what keeps their bits, and a group of 8 bits beside
    each that gives some up; what is left as it came is in no group."""
    groups = []
    for group in recipe.groups:
        own = [unit for unit in units if unit.group == group]
        kept = [unit for unit in own if bits[unit] == group.bits]
        more = [unit for unit in own if bits[unit] == MORE_BITS and group.bits != MORE_BITS]
        if len(kept) == len(own):
            groups.append(group)
        elif kept:
            groups.append(group.model_copy(update={"targets": _targets(kept)}))
        if more:
            changed = {"name": f"{group.name}_8", "bits": MORE_BITS, "targets": _targets(more)}
            groups.append(group.model_copy(update=changed))
    if not groups:
        raise SensitivityRefused(
            "The budget has room for every weight as it came: nothing would be left to quantize. "
            "Give a smaller one."
        )
    return recipe.model_copy(
        update={
            "name": f"{recipe.name}-mixed",
            "description": f"{recipe.name} with more bits where a job's errors ask for them.",
            "groups": tuple(groups),
        }
    )


def _targets(units: Sequence[Unit]) -> tuple[str, ...]:
    """One pattern for each kind, with the numbers of its layers."""
    layers: dict[tuple[str, str], list[int]] = defaultdict(list)
    for unit in units:
        layers[unit.prefix, unit.kind].append(unit.layer)
    return tuple(
        rf"{re.escape(prefix)}\.({'|'.join(map(str, sorted(numbers)))}){kind}"
        for (prefix, kind), numbers in layers.items()
    )

"""What a job will do and need, and whether it can, before any weight is loaded.

Everything is read on the meta device, from names and shapes: a model of 228 billion parameters
takes seconds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel

from app.errors import CalibrantError
from app.formatting import size
from app.jobs.preflight import Preflight, TargetMatches
from app.recipes.schema import Recipe
from workers.engine.checkpoints.export import refuse_unexportable
from workers.engine.device import compute_device, compute_dtype, room
from workers.engine.formats.fp8_blocks import STORED_SCALE
from workers.engine.formats.safetensors_files import Shards
from workers.engine.models.architecture import layer_name_of, linear_names, moe_layers
from workers.engine.models.checkpoint_names import EXPERT_NUMBER, CheckpointNames, checkpoint_names
from workers.engine.models.completeness import refuse_incomplete
from workers.engine.models.loading import (
    has_weights,
    limits_of,
    load_tokenizer,
    read_config,
    refuse_unusable_source,
)
from workers.engine.models.meta_model import meta_model
from workers.engine.models.reloading import why_not_reloaded
from workers.engine.plan.plan import Plan, plan_of
from workers.engine.plan.targets import weight_args
from workers.engine.preflight.lengths import Lengths
from workers.engine.preflight.measurement import measure
from workers.engine.preflight.refusals import refuse_too_large
from workers.engine.preflight.resources import (
    Sizes,
    disk_of,
    free_disk,
    must_rest_on_disk,
    ram_of,
    rows_on_accelerator,
    sizes_in,
    stored_bytes,
    vram_of,
    weights_of,
)
from workers.engine.preflight.work import work_of
from workers.engine.rows.batches import pack
from workers.engine.rows.calibration_rows import CalibrationRows, read_rows

ASSUMED_TOKENS = 1_000_000
TOKENS_A_BATCH = 512
NUMBER = re.compile(r"\.\d+(?=\.|$)")
SHOWN_KINDS = 20


@dataclass
class _Findings:
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Take a refusal down instead of stopping at it."""
        try:
            yield
        except CalibrantError as error:
            self.errors.append(error.sentence)


def preflight(
    directory: Path, recipe: Recipe, rows: Path | None = None, place: Path | None = None
) -> Preflight:
    """Look at everything a job on this model would need.

    ``rows`` is a built set or a JSONL file, which is read, rendered by the chat template and held
    against the model's limits; without it a million tokens are assumed. ``place`` is where the
    job's files would go. What refuses a job stands under ``errors``, each in a sentence that says
    what would be right. Raises ModelRefused when the directory is no model at all.
    """
    read_config(directory)
    found = _Findings()
    model = meta_model(directory)
    has_names = _check_source(directory, model, found)
    calibration = _check_rows(directory, model, rows, found)
    tokens = calibration.tokens if calibration else ASSUMED_TOKENS
    document = Preflight(
        tokens=tokens,
        tokens_assumed=calibration is None,
        rows=len(calibration.rows) if calibration else None,
        targets=list(_targets(model, recipe)),
    )
    plan: Plan | None = None
    with found.refusals():
        plan = plan_of(model, recipe)
    if plan is not None:
        _describe_plan(document, model, plan)
        names = checkpoint_names(model, Shards(directory).tensors) if has_names else None
        if names is not None:
            _check_names(names, model, plan, document, found)
        found.warnings += _experts_to_know_of(model, plan, names)
        place = place or Path.cwd()
        computed = compute_dtype(compute_device(), model.dtype)
        sizes = sizes_in(directory, model, plan, computed.itemsize, names)
        lengths = (
            Lengths.of(pack(calibration.rows, TOKENS_A_BATCH))
            if calibration
            else Lengths.assumed(tokens, TOKENS_A_BATCH)
        )
        _predict(document, model, plan, sizes, lengths, found, place)
        if has_names:
            with found.refusals():
                refuse_too_large(directory, recipe, place, kept=0)
        elif document.disk_bytes > document.free_disk_bytes:
            free = size(document.free_disk_bytes)
            found.warnings.append(
                f"The job needs {size(document.disk_bytes)} of disk and {free} are free at {place}."
            )
    document.unquantized = _kinds(model, set(plan.modules) if plan else set())
    document.errors, document.warnings = found.errors, found.warnings
    document.ok = not found.errors
    return document


def _check_source(directory: Path, model: PreTrainedModel, found: _Findings) -> bool:
    """Whether there are whole files, whose names can be held against the recipe."""
    has_files, whole = has_weights(directory), False
    with found.refusals():
        refuse_unusable_source(directory, weights=has_files)
        if has_files:
            refuse_incomplete(model, directory)
            whole = True
    if not has_files:
        found.warnings.append(
            f"{directory} has no safetensors: names, shapes and files were not checked."
        )
        return False
    with found.refusals():
        load_tokenizer(directory)
    return whole


def _check_rows(
    directory: Path, model: PreTrainedModel, rows: Path | None, found: _Findings
) -> CalibrationRows | None:
    if rows is None:
        found.warnings.append(
            f"No set was given: {ASSUMED_TOKENS:,} tokens are assumed for memory and time."
        )
        return None
    with found.refusals():
        read = read_rows(rows, load_tokenizer(directory), limits_of(model))
        if read.concern is not None:
            found.warnings.append(read.concern)
        return read
    return None


def _targets(model: PreTrainedModel, recipe: Recipe) -> Iterator[TargetMatches]:
    """Every pattern of the recipe, of targets and of modules to ignore, with its matches."""
    linears = linear_names(model)
    for group in recipe.groups:
        for pattern in group.targets:
            matches = sum(re.match(pattern, name) is not None for name in linears)
            yield TargetMatches(pattern=pattern, group=group.name, matches=matches)
    for pattern in recipe.ignore:
        matches = sum(re.match(pattern, name) is not None for name in linears)
        yield TargetMatches(pattern=pattern, group=None, matches=matches)


def _describe_plan(document: Preflight, model: PreTrainedModel, plan: Plan) -> None:
    document.quantized_modules = len(plan.modules)
    document.modules_by_group = dict(Counter(group.name for group in plan.modules.values()))
    document.mappings = len(plan.mappings)
    document.mappings_by_kind = _kind_counts(mapping.smooth for mapping in plan.mappings)
    document.router_safe = _is_router_safe(model, plan)
    document.group_sizes = sorted({g.group_size or 0 for g in plan.recipe.groups})


def _experts_to_know_of(
    model: PreTrainedModel, plan: Plan, names: CheckpointNames | None
) -> Iterator[str]:
    """What is to be known of how the experts are packed: not everything loads them. ``names`` are
    those of the source's files, None where there are none."""
    experts = [n for n in linear_names(model) if EXPERT_NUMBER.search(f"{n}.")]
    if names is not None:
        experts = [n for n in experts if not names.is_fused(f"{n}.weight")]
    found = {plan.modules.get(name) for name in experts}
    reason = why_not_reloaded(
        [weight_args(group) if group else None for group in found],
        [weight_args(group) for group in plan.recipe.groups],
    )
    if reason is None:
        return
    yield (
        f"transformers 5.17 cannot reload the checkpoint, because {reason}: verification reads its "
        "tensors without it, and `calibrant evaluate` refuses it. Serving engines load it."
    )
    if any(group is not None and not group.symmetric for group in found):
        yield (
            "vLLM serves experts with zero points since its pull request 44025 and SGLang since "
            "27690, both of summer 2026, and older versions refuse them; transformers' pull "
            "request 47430 is open."
        )


def _is_router_safe(model: PreTrainedModel, plan: Plan) -> bool:
    """Whether every mapping that scales what experts read scales their router with it."""
    routers = {layer.layer_name: layer for layer in moe_layers(model)}
    for mapping in plan.mappings:
        layer = routers.get(layer_name_of(mapping.smooth) or "")
        if layer is None or mapping.balance == (mapping.parent,):
            continue
        reads = any(name.startswith(f"{layer.experts_name}.") for name in mapping.balance)
        if reads and layer.router_name not in mapping.balance:
            return False
    return True


def _check_names(
    names: CheckpointNames,
    model: PreTrainedModel,
    plan: Plan,
    document: Preflight,
    found: _Findings,
) -> None:
    """Hold the plan against the names in the source's files."""
    document.source_tensors = len(names.parameter_of) + len(names.others)
    with found.refusals():
        refuse_unexportable(names, plan)
    strangers = names.strangers(model.state_dict())
    if strangers := [each for each in strangers if not each.endswith(f".{STORED_SCALE}")]:
        found.warnings.append(
            f"{len(strangers):,} tensors of the source are not part of the model transformers "
            f"builds, {strangers[0]} first: they are copied as they are."
        )


def _predict(
    document: Preflight,
    model: PreTrainedModel,
    plan: Plan,
    sizes: Sizes,
    rows: Lengths,
    found: _Findings,
    place: Path,
) -> None:
    device = compute_device()
    dtype = compute_dtype(device, model.dtype)
    document.ram_bytes = ram_of(sizes, rows, on_cpu=device.type == "cpu")
    document.vram_bytes, document.vram_layerwise_bytes = vram_of(
        *weights_of(model, stored_bytes(model)), rows_on_accelerator(sizes, rows)
    )
    document.disk_bytes, document.checkpoint_bytes = disk_of(sizes), sizes.checkpoint
    work = work_of(model, plan, rows)
    name, group = next(iter(plan.modules.items()))
    height, columns = model.get_parameter(f"{name}.weight").shape
    speed = measure(height, columns, group, dtype)
    document.seconds = work.macs / speed.macs + work.rounded / speed.rounded
    document.macs, document.macs_per_second = work.macs, speed.macs
    document.free_disk_bytes = free_disk(place)
    there = room()
    document.memory_bytes, document.accelerator_bytes = there.ram, there.accelerator
    if must_rest_on_disk(sizes.weights, sizes.largest_layer):
        found.warnings.append(
            f"This machine's {size(there.ram)} of memory do not hold the weights "
            f"({size(sizes.weights)}) and what is kept beside them: they rest on the disk of "
            f"{place} meanwhile, and each pass reads them from there."
        )
    if document.ram_bytes > there.ram:
        found.warnings.append(
            f"The job needs about {size(document.ram_bytes)} of memory and this machine has "
            f"{size(there.ram)}."
        )
    if there.accelerator is not None and document.vram_bytes > there.accelerator:
        found.warnings.append(
            f"The accelerator's {size(there.accelerator)} do not hold the whole model "
            f"({size(document.vram_bytes)}): its layers are brought over one at a time."
        )


def _kinds(model: nn.Module, quantized: set[str]) -> dict[str, int]:
    """Linear modules that stay as they are, numbers collapsed, the most frequent first."""
    return _kind_counts(name for name in linear_names(model) if name not in quantized)


def _kind_counts(names: Iterable[str]) -> dict[str, int]:
    counts = Counter(NUMBER.sub(".*", name) for name in names)
    return dict(counts.most_common(SHOWN_KINDS))

"""Jobs that would fail, refused before they begin."""

from __future__ import annotations

from pathlib import Path

from app.errors import DiskFull, OutOfMemory
from app.formatting import size
from app.recipes.schema import Recipe
from workers.engine.checkpoints.export import refuse_unexportable
from workers.engine.device import compute_device, compute_dtype, room
from workers.engine.formats.safetensors_files import Shards
from workers.engine.models.checkpoint_names import checkpoint_names
from workers.engine.models.completeness import refuse_incomplete
from workers.engine.models.loading import load_tokenizer, refuse_unusable_source
from workers.engine.models.meta_model import meta_model
from workers.engine.models.resting import refuse_not_one_by_one
from workers.engine.plan.plan import plan_of
from workers.engine.preflight.resources import (
    disk_of,
    free_disk,
    must_rest_on_disk,
    sizes_in,
    vram_of,
)


def refuse_unfit(directory: Path, recipe: Recipe | None) -> None:
    """Raise ModelRefused or RecipeRefused for what a job on this model would fail at: a source
    that cannot be used, files that lack some of it, no tokenizer, a recipe that does not fit, names
    that cannot be kept."""
    refuse_unusable_source(directory)
    load_tokenizer(directory)
    model = meta_model(directory)
    refuse_incomplete(model, directory)
    if recipe is not None:
        names = checkpoint_names(model, Shards(directory).tensors)
        refuse_unexportable(names, plan_of(model, recipe))


def refuse_too_large(directory: Path, recipe: Recipe, place: Path, kept: int) -> None:
    """Raise DiskFull or OutOfMemory when a job certainly does not fit this machine: its files the
    disk of ``place``, where ``kept`` bytes of them are already, or one layer alone the RAM or the
    accelerator's memory; ModelRefused when its weights would have to rest on disk and cannot."""
    model = meta_model(directory)
    dtype = compute_dtype(compute_device(), model.dtype)
    names = checkpoint_names(model, Shards(directory).tensors)
    sizes = sizes_in(directory, model, plan_of(model, recipe), dtype.itemsize, names)
    needed, free = disk_of(sizes) - kept, free_disk(place)
    if needed > free:
        raise DiskFull(
            f"The job needs {size(needed)} on the disk of {place} and {size(free)} are free: free "
            "some space, or choose another place."
        )
    there = room()
    if must_rest_on_disk(sizes.weights, sizes.largest_layer):
        refuse_not_one_by_one(model, names, directory)
    if (searched := 3 * sizes.largest_layer) > there.ram:
        raise OutOfMemory(
            f"The search of one layer takes {size(searched)} and this machine has "
            f"{size(there.ram)} of memory: run the job on a machine with more memory."
        )
    _, least = vram_of(sizes.weights, sizes.largest_layer)
    if there.accelerator is not None and least > there.accelerator:
        raise OutOfMemory(
            f"A layer of this model takes {size(least)} on the accelerator, which has "
            f"{size(there.accelerator)}: run the job on one with more memory."
        )

"""The quantized model as a checkpoint that serves, made from the source file by file.

Every tensor of the source is gone through in its own file: a quantized weight is written as its
packed tensors under the source's name (``.weight`` → ``.weight_packed``, ``.weight_scale``,
``.weight_shape`` and, when asymmetric, ``.weight_zero_point``); a tensor that smoothing changed is
written in the source's dtype; everything else is copied as it is, so it is equal to the source
byte for byte. Changed by design, and only where AWQ smoothed: norms, routers, and weights that
read a smoothed norm without being quantized.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from app.artifacts import (
    disk_full_is_a_sentence,
    sync,
    write_model,
    write_text,
)
from app.errors import CheckpointRefused, DiskFull, RecipeRefused
from app.jobs.spec import CheckpointFile
from app.recipes.schema import Recipe
from workers.engine.checkpoints.manifest import MANIFEST, CheckpointManifest, read_manifest
from workers.engine.checkpoints.quantization_config import quantization_config
from workers.engine.formats.fp8_blocks import FP8, STORED_SCALE, blocks_of, written_name
from workers.engine.formats.packing import sha256_of
from workers.engine.formats.safetensors_files import INDEX, Shards
from workers.engine.models.checkpoint_names import CheckpointNames, checkpoint_names
from workers.engine.models.loading import read_config
from workers.engine.models.provenance import described, package_versions, source_of
from workers.engine.plan.plan import Plan
from workers.engine.quantization.quantize import Quantized
from workers.engine.quantization.resuming import partial_of

CARRIED = (
    "tokenizer*.json", "vocab*.json", "added_tokens.json", "special_tokens_map.json",
    "generation_config.json", "chat_template*.json", "*processor_config.json",
    "*.jinja", "*.model", "*.tiktoken", "*.txt",
    "LICEN[CS]E*", "NOTICE*", "COPYING*", "USE_POLICY*",
    "*.py",  # named by config.json's auto_map: docs/decisions/0022
)  # fmt: skip
OWN_FILES = ("config.json", INDEX, MANIFEST)

SHARD_BYTES = 5_000_000_000

OnShard = Callable[[int, int], None]


@dataclass(frozen=True)
class Exported:
    """A finished checkpoint: its files, manifest last."""

    directory: Path
    files: list[CheckpointFile]


@dataclass(frozen=True)
class _Rewriting:
    """What turns source tensors into the checkpoint's, and the hashes gathered on the way."""

    shards: Shards
    names: CheckpointNames
    quantized: Quantized
    state: dict[str, torch.Tensor]
    changed: frozenset[str]
    dequantized: dict[str, str]
    smoothed: dict[str, str]

    def tensors_of(self, source: str) -> dict[str, torch.Tensor]:
        """What one source tensor becomes, by name."""
        parameter = self.names.parameter_of.get(source, "")
        module, _, leaf = parameter.rpartition(".")
        packed = self.quantized.packed.get(module)
        if source.endswith(f".{STORED_SCALE}"):
            return self._scale_of(source)
        if packed is not None and leaf == "weight":
            self.dequantized[source] = packed.dequantized_sha256
            base = source.removesuffix("weight")
            return {base + suffix: tensor for suffix, tensor in packed.tensors.items()}
        if module in self.quantized.fp8 and leaf == "weight":
            weight = self.quantized.fp8[module][0].cpu().contiguous()
            self.smoothed[source] = sha256_of(weight)
            return {source: weight}
        original = self.shards.tensor(source)
        if module in self.changed and parameter in self.state:
            tensor = self.state[parameter].detach().to("cpu", original.dtype).contiguous()
            if not torch.equal(tensor, original):
                self.smoothed[source] = sha256_of(tensor)
                return {source: tensor}
        return {source: original}

    def _scale_of(self, source: str) -> dict[str, torch.Tensor]:
        """The factors of a weight in FP8 blocks, under the name compressed-tensors has for them:
        gone where the weight is packed, new where it was smoothed, else as they were."""
        weight = source.removesuffix(STORED_SCALE) + "weight"
        module = self.names.parameter_of.get(weight, "").removesuffix(".weight")
        if module in self.quantized.packed:
            return {}
        if module in self.quantized.fp8:
            scale = self.quantized.fp8[module][1].cpu().contiguous()
            self.smoothed[source] = sha256_of(scale)
            return {written_name(source): scale}
        return {written_name(source): self.shards.tensor(source)}


def refuse_taken_destination(destination: Path) -> None:
    """Raise CheckpointRefused when something is at ``destination`` already."""
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise CheckpointRefused(
            f"{destination} is there already and is not empty: give another directory, or remove "
            "it first."
        )


def exported_before(
    destination: Path, source: Path, recipe: Recipe, set_id: str
) -> Exported | None:
    """The checkpoint an earlier run that was stopped wrote to ``destination``; None when there is
    none, when it is of something else, or when a file of it changed since or is gone."""
    if not destination.is_dir():
        return None
    found = read_manifest(destination)
    wanted = (source_of(source), recipe, set_id, package_versions())
    if found is None or (found.source, found.recipe, found.set_id, found.packages) != wanted:
        return None
    for file in found.files:
        there = destination / file.name
        if not there.is_file() or described(there) != file:
            return None
    return Exported(destination, [*found.files, described(destination / MANIFEST)])


def refuse_unexportable(names: CheckpointNames, plan: Plan) -> None:
    """Raise ModelRefused, before the long work, when a weight to quantize has no tensor of its
    own in the source (gpt-oss and Granite keep their experts fused), RecipeRefused when one that
    would be smoothed has none."""
    for module in plan.modules:
        names.source_weight(module)
    for mapping in plan.mappings:
        for module in (mapping.smooth, *mapping.balance):
            if f"{module}.weight" not in names.source_of:
                raise RecipeRefused(
                    f"{mapping.smooth} cannot be smoothed: the checkpoint has no tensor of its own "
                    f"for {module}, which would change too. Leave what reads this norm out of the "
                    "recipe's targets, or quantize without AWQ."
                )


def export(
    model: PreTrainedModel,
    quantized: Quantized,
    source: Path,
    set_id: str,
    destination: Path,
    on_shard: OnShard | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Exported:
    """Write the checkpoint beside ``destination``, then rename it there; manifest last.

    Its files are the source's, cut where one would be larger than ``shard_bytes``.

    Raises DiskFull (nothing half-written stays) and CheckpointRefused (destination taken).
    """
    refuse_taken_destination(destination)
    partial = partial_of(destination)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with disk_full_is_a_sentence(destination):
            files = _write(model, quantized, source, set_id, partial, on_shard, shard_bytes)
            if destination.exists():
                destination.rmdir()
            partial.rename(destination)
            sync(destination.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Exported(destination, files)


def _write(
    model: PreTrainedModel,
    quantized: Quantized,
    source: Path,
    set_id: str,
    directory: Path,
    on_shard: OnShard | None,
    shard_bytes: int,
) -> list[CheckpointFile]:
    shards = Shards(source)
    names = checkpoint_names(model, shards.tensors)
    _refuse_too_little_room(shards, names, quantized, directory)
    changed = quantized.smoothed | quantized.packed.keys()
    rewriting = _Rewriting(shards, names, quantized, model.state_dict(), changed, {}, {})
    _write_shards(rewriting, directory, shard_bytes, on_shard)
    given = read_config(source)
    in_blocks = [n.removesuffix(".weight") for n, t in shards.tensors.items() if t.dtype == FP8]
    section = quantization_config(model, quantized.plan, names, blocks_of(given), in_blocks)
    config = {**given, "quantization_config": section}
    write_text(directory / "config.json", json.dumps(config, indent=2) + "\n")
    _carry_over(source, directory)
    for file in directory.iterdir():
        sync(file)
    files = [described(file) for file in sorted(directory.iterdir())]
    manifest = CheckpointManifest(
        source=source_of(source),
        recipe=quantized.plan.recipe,
        set_id=set_id,
        packages=package_versions(),
        dequantized=rewriting.dequantized,
        smoothed=rewriting.smoothed,
        files=files,
    )
    write_model(directory / MANIFEST, manifest)
    return [*files, described(directory / MANIFEST)]


def _refuse_too_little_room(
    shards: Shards, names: CheckpointNames, quantized: Quantized, directory: Path
) -> None:
    packed = sum(t.nbytes for weight in quantized.packed.values() for t in weight.tensors.values())
    replaced = {names.source_weight(module) for module in quantized.packed}
    kept = [stored.size_bytes for name, stored in shards.tensors.items() if name not in replaced]
    needed = packed + sum(kept)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise DiskFull(
            f"The checkpoint needs {needed / 1e6:,.1f} MB and the disk of {directory.parent} has "
            f"{free / 1e6:,.1f} MB free: free some space and start again."
        )


@dataclass
class _Shard:
    """A file being filled: the source's file it began with, its tensors and their bytes."""

    source: str
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    bytes: int = 0

    def add(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors.update(tensors)
        self.bytes += sum(tensor.nbytes for tensor in tensors.values())


def _write_shards(
    rewriting: _Rewriting, directory: Path, shard_bytes: int, on_shard: OnShard | None
) -> None:
    """Write the source's files one by one, cut where one would be larger than ``shard_bytes``;
    a tensor larger than that gets a file of its own."""
    shards = rewriting.shards
    written: list[tuple[Path, str, list[str]]] = []
    total_size = 0
    for done, file in enumerate(shards.files, start=1):
        shard = _Shard(file)
        for source in shards.names_in(file):
            tensors = rewriting.tensors_of(source)
            size = sum(tensor.nbytes for tensor in tensors.values())
            if shard.tensors and shard.bytes + size > shard_bytes:
                written.append(_write_shard(shard, directory, len(written)))
                total_size += shard.bytes
                shard = _Shard(file)
            shard.add(tensors)
        written.append(_write_shard(shard, directory, len(written)))
        total_size += shard.bytes
        if on_shard is not None:
            on_shard(done, len(shards.files))
    _name_shards(written, shards, directory, total_size)


def _write_shard(shard: _Shard, directory: Path, number: int) -> tuple[Path, str, list[str]]:
    file = directory / f".shard-{number:05d}"
    save_file(shard.tensors, file, metadata={"format": "pt"})
    return file, shard.source, list(shard.tensors)


def _name_shards(
    written: list[tuple[Path, str, list[str]]], shards: Shards, directory: Path, total_size: int
) -> None:
    """Give the files the source's names, or numbers where one of the source's became several."""
    mirrored = len(written) == len(shards.files)
    weight_map: dict[str, str] = {}
    for number, (file, source, names) in enumerate(written, start=1):
        name = source if mirrored else f"model-{number:05d}-of-{len(written):05d}.safetensors"
        file.rename(directory / name)
        weight_map.update(dict.fromkeys(names, name))
    if len(written) > 1 or (shards.directory / INDEX).is_file():
        index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
        write_text(directory / INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")


def _carry_over(source: Path, directory: Path) -> None:
    """Copy tokenizer, templates, generation settings, licences and the author's code, which is
    never run here; no weights."""
    for file in sorted(source.iterdir()):
        wanted = any(fnmatch(file.name, pattern) for pattern in CARRIED)
        if file.is_file() and wanted and file.name not in OWN_FILES:
            shutil.copyfile(file, directory / file.name)

"""What each finished layer leaves behind, on disk or in memory.

A layer is two files: ``layer-NNNN.safetensors`` with its scales and packed weights, then
``layer-NNNN.json`` with the first one's SHA-256, the errors and the events. The second is written
last, so a layer is there whole or not at all. Scales rather than smoothed weights are kept:
applied once more to the source's weights they give the same bits, and they are a thousandth of
the size.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.quantization import QuantizationScheme
from pydantic import BaseModel
from safetensors import safe_open
from safetensors.torch import save_file

from app.artifacts import disk_full_is_a_sentence, sync, write_model
from app.errors import ResumeRefused
from app.jobs.events import Event
from app.jobs.spec import LayerReport, ModuleReport
from workers.engine.formats.packing import SUFFIXES, PackedWeight
from workers.engine.models.provenance import described

STATE = "state.json"
SCALES = "scales/"
PACKED = "packed/"

SchemeOf = Callable[[str], QuantizationScheme]


@dataclass
class LayerRecord:
    """One finished stretch of the model: the scales applied, by smooth layer and in order, the
    packed weights by module, the errors, and the events told on the way."""

    scales: dict[str, torch.Tensor] = field(default_factory=dict)
    packed: dict[str, PackedWeight] = field(default_factory=dict)
    layers: list[LayerReport] = field(default_factory=list)
    modules: list[ModuleReport] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


class Fingerprint(BaseModel):
    """Everything the bits of a run depend on, each part by name."""

    version: int = 1
    parts: dict[str, str]

    def require(self, parts: Mapping[str, str], directory: Path) -> None:
        """Raise ResumeRefused where one of these parts is another: the layers in ``directory``,
        whose fingerprint this is, were made of something else."""
        differing = [name for name, value in parts.items() if self.parts.get(name) != value]
        if differing:
            raise ResumeRefused(
                f"The finished layers in {directory} cannot be used again, because "
                f"{_listed(differing)} changed since: start again without them."
            )


class _Manifest(BaseModel):
    sha256: str
    order: list[str]
    dequantized: dict[str, str]
    layers: list[LayerReport]
    modules: list[ModuleReport]
    events: list[Event]


class LayerStore:
    """Records by number. ``directory`` None keeps them in memory; ``scheme_of`` gives the scheme
    of a quantized module by its name."""

    def __init__(self, directory: Path | None, scheme_of: SchemeOf) -> None:
        self.directory = directory
        self._scheme_of = scheme_of
        self._memory: dict[int, LayerRecord] = {}
        self._owner: dict[str, int] = {}
        self._dequantized: dict[str, str] = {}

    def open(self, fingerprint: Fingerprint) -> int:
        """Start or go on; the number of records that are there.

        Raises ResumeRefused when what is there was made of something else.
        """
        if self.directory is None:
            return 0
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / STATE
        if not file.is_file():
            write_model(file, fingerprint)
            return 0
        found = Fingerprint.model_validate_json(file.read_bytes())
        found.require(fingerprint.parts, self.directory)
        return self.finished()

    @property
    def was_opened(self) -> bool:
        """Whether an earlier run began to keep records here."""
        return self.directory is not None and (self.directory / STATE).is_file()

    def adopt(self, earlier: Path) -> None:
        """Take over the records of another directory, all or none, as links to the same files: a
        record is never changed, so both may use it."""
        assert self.directory is not None
        if not (earlier / STATE).is_file():
            return
        partial = self.directory.with_name(f".{self.directory.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for file in (*earlier.glob("layer-*"), earlier / STATE):
            os.link(file, partial / file.name)
        shutil.rmtree(self.directory, ignore_errors=True)
        partial.rename(self.directory)

    def layers(self, records: int) -> int:
        """How many decoder layers the first ``records`` records hold."""
        if self.directory is None:
            return sum(len(self._memory[number].layers) for number in range(records))
        return sum(len(self._manifest(number).layers) for number in range(records))

    def finished(self) -> int:
        """How many records there are, from the first one on without a gap."""
        if self.directory is None:
            return len(self._memory)
        number = 0
        while self._file(number, "json").is_file():
            number += 1
        return number

    def save(self, number: int, record: LayerRecord) -> None:
        """Keep a record. Raises DiskFull, and leaves nothing half-written."""
        self._owner.update(dict.fromkeys(record.packed, number))
        self._dequantized.update({n: p.dequantized_sha256 for n, p in record.packed.items()})
        if self.directory is None:
            self._memory[number] = record
            return
        tensors = {SCALES + name: scales.contiguous() for name, scales in record.scales.items()}
        for name, packed in record.packed.items():
            tensors.update({f"{PACKED}{name}/{s}": t for s, t in packed.tensors.items()})
        file = self._file(number, "safetensors")
        _write_tensors(file, tensors)
        manifest = _Manifest(
            sha256=described(file).sha256,
            order=list(record.scales),
            dequantized={name: p.dequantized_sha256 for name, p in record.packed.items()},
            layers=record.layers,
            modules=record.modules,
            events=record.events,
        )
        write_model(self._file(number, "json"), manifest)
        sync(self.directory)

    def load(self, number: int) -> LayerRecord:
        """A record with its scales; its packed weights are read when ``packed`` is asked.

        Raises ResumeRefused when the file is not what was written.
        """
        if self.directory is None:
            return self._memory[number]
        manifest = self._manifest(number)
        file = self._file(number, "safetensors")
        if not file.is_file() or described(file).sha256 != manifest.sha256:
            raise ResumeRefused(f"{file} is damaged: remove it and its .json, then go on.")
        self._owner.update(dict.fromkeys(manifest.dequantized, number))
        self._dequantized.update(manifest.dequantized)
        with safe_open(file, framework="pt") as tensors:
            scales = {name: tensors.get_tensor(SCALES + name) for name in manifest.order}
        return LayerRecord(
            scales=scales, layers=manifest.layers, modules=manifest.modules, events=manifest.events
        )

    @property
    def packed(self) -> Mapping[str, PackedWeight]:
        """Every packed weight kept so far, by module name, each read when it is looked up."""
        return _PackedWeights(self)

    def _manifest(self, number: int) -> _Manifest:
        return _Manifest.model_validate_json(self._file(number, "json").read_bytes())

    def _file(self, number: int, suffix: str) -> Path:
        assert self.directory is not None
        return self.directory / f"layer-{number:04d}.{suffix}"

    def _packed_weight(self, name: str) -> PackedWeight:
        number = self._owner[name]
        if self.directory is None:
            return self._memory[number].packed[name]
        prefix = f"{PACKED}{name}/"
        with safe_open(self._file(number, "safetensors"), framework="pt") as tensors:
            there = set(tensors.keys())
            found = {s: tensors.get_tensor(prefix + s) for s in SUFFIXES if prefix + s in there}
        return PackedWeight(found, self._scheme_of(name), self._dequantized[name])


class _PackedWeights(Mapping[str, PackedWeight]):
    def __init__(self, store: Any) -> None:
        self._store = store

    def __getitem__(self, name: str) -> PackedWeight:
        found: PackedWeight = self._store._packed_weight(name)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._store._owner

    def __iter__(self) -> Iterator[str]:
        return iter(self._store._owner)

    def __len__(self) -> int:
        return len(self._store._owner)


def _write_tensors(file: Path, tensors: dict[str, torch.Tensor]) -> None:
    partial = file.with_name(f".{file.name}.partial")
    try:
        with disk_full_is_a_sentence(file):
            save_file(tensors, partial)
            with partial.open("rb") as stream:
                os.fsync(stream.fileno())
            partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

"""Whether a checkpoint holds what its source and its recipe say it should.

Tensor by tensor: present under the right name, of the right shape, with finite positive scales;
its dequantized value the one the engine had in memory (SHA-256 in ``calibrant.json``) and close to
the source; everything else equal to the source byte for byte, or to the smoothed value the
manifest names. Last, transformers loads it without a missing or unexpected key. Nothing here
raises for a broken checkpoint: each fault becomes a Problem that names its tensor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.quantization import (
    QuantizationConfig,
    QuantizationScheme,
    QuantizationStrategy,
)
from safetensors import SafetensorError

from app.errors import CalibrantError, CheckpointRefused
from app.formatting import size
from app.jobs.spec import Problem, Verification
from workers.engine.checkpoints.manifest import read_manifest
from workers.engine.device import holds, room
from workers.engine.formats.fp8_blocks import (
    FP8,
    STORED_SCALE,
    blocks_of,
    dequantize_blocks,
    scale_name,
    written_name,
)
from workers.engine.formats.packing import dequantize, sha256_of, tensors_of
from workers.engine.formats.safetensors_files import Shards
from workers.engine.models.checkpoint_names import EXPERT_NUMBER, checkpoint_names
from workers.engine.models.loading import read_config, refuse_unusable_source
from workers.engine.models.meta_model import meta_model
from workers.engine.models.provenance import described, source_of
from workers.engine.models.reloading import why_not_reloaded

# Scales found from a single token leave up to 0.3 unexplained, another's weight over 0.7.
FAR_FROM_SOURCE = 0.5
DIAGONAL_FITS = 3
TENSORS_A_TELL = 50
NO_MANIFEST = (
    "It has no calibrant.json: whether the packed weights are those that were quantized, whether "
    "the other tensors are as they should be beyond shape and dtype, and whether a file is missing "
    "or changed was not checked."
)

Progress = Callable[[int, int], None]


def verify(
    checkpoint: Path, source: Path, progress: Progress | None = None, reload: bool = True
) -> Verification:
    """Check a checkpoint against the model it was made from.

    ``reload`` also loads it with transformers, which takes the memory of the model, unless that
    cannot load such experts (``workers.engine.models.reloading``). Raises
    CheckpointRefused or ModelRefused when the directories are no checkpoint and no model at all.
    """
    refuse_unusable_source(source)
    if not checkpoint.is_dir():
        raise CheckpointRefused(f"There is no checkpoint at {checkpoint}.")
    check = _Check(checkpoint, source)
    problems = list(check.problems(progress))
    unchecked = [] if check.manifest else [NO_MANIFEST]
    if reload and not problems:
        if reason := check.why_not_reloaded():
            unchecked.append(f"Loading it: transformers cannot, because {reason}.")
        else:
            problems = list(_reload_problems(checkpoint, source))
    return Verification(
        ok=not problems,
        tensors=check.accounted,
        quantized=check.packed,
        problems=problems,
        unchecked=unchecked,
    )


def refuse_not_reloadable(checkpoint: Path, source: Path) -> None:
    """Raise CheckpointRefused when transformers would give the experts of a checkpoint other
    values than it has. A checkpoint that is not quantized passes."""
    if not read_config(checkpoint).get("quantization_config"):
        return
    if reason := _Check(checkpoint, source).why_not_reloaded():
        raise CheckpointRefused(
            f"transformers cannot load {checkpoint}, because {reason}: compare it with its "
            "original in a serving engine."
        )


class _Check:
    """One pass over the tensors of the source and of the checkpoint."""

    def __init__(self, checkpoint: Path, source: Path) -> None:
        self.checkpoint, self.source_directory = checkpoint, source
        self.source = Shards(source)
        self.written = Shards(checkpoint, CheckpointRefused)
        self.manifest = read_manifest(checkpoint)
        self.config = _quantization_config(checkpoint)
        self.blocks = blocks_of(read_config(source))
        self.accounted = 0
        self.packed = 0

    def problems(self, progress: Progress | None = None) -> Iterator[Problem]:
        """Every fault found, tensor by tensor, then file by file."""
        for file, reason in self.written.unreadable.items():
            yield Problem(tensor=file, problem=f"The file cannot be read: {reason}.")
        for name, reason in self.written.misplaced():
            yield Problem(tensor=name, problem=reason)
        yield from self._foreign_source()
        expected: set[str] = set()
        for done, name in enumerate(self.source.tensors, start=1):
            if progress is not None and done % TENSORS_A_TELL == 0:
                progress(done, len(self.source.tensors))
            names = self._names_for(name)
            expected.update(names)
            faults = list(self._faults(name, names))
            self.accounted += not any("is missing" in fault.problem for fault in faults)
            yield from faults
        for name in self.written.tensors.keys() - expected:
            yield Problem(tensor=name, problem="The source has no tensor that this could be.")
        yield from self._changed_files()

    def why_not_reloaded(self) -> str | None:
        """Why transformers cannot load the checkpoint; None where it can."""
        weights = sum(one.nbytes for one in meta_model(self.source_directory).state_dict().values())
        if not holds(ram := room().ram, weights):
            return f"it takes {size(weights)} there and this machine has {size(ram)} of memory"
        held = checkpoint_names(meta_model(self.source_directory), self.source.tensors).parameter_of
        names = [n for n in held if EXPERT_NUMBER.search(n) and n.endswith(".weight")]
        schemes = {id(each): each for each in map(self._scheme_of, names)}.values()
        groups = self.config.config_groups.values()
        return why_not_reloaded(
            [scheme.weights if scheme else None for scheme in schemes],
            [g.weights for g in groups if isinstance(g, QuantizationScheme) and g.weights],
        )

    def _foreign_source(self) -> Iterator[Problem]:
        if (
            self.manifest
            and self.manifest.source.fingerprint != source_of(self.source_directory).fingerprint
        ):
            yield Problem(
                tensor=self.manifest.source.name,
                problem=f"The checkpoint was made from another model than {self.source_directory}.",
            )

    def _names_for(self, name: str) -> list[str]:
        if name.endswith(f".{STORED_SCALE}"):
            weight = name.removesuffix(STORED_SCALE) + "weight"
            return [] if self._scheme_of(weight) else [written_name(name)]
        scheme = self._scheme_of(name)
        if scheme is None:
            return [name]
        return [name.removesuffix("weight") + suffix for suffix in tensors_of(scheme)]

    def _scheme_of(self, name: str) -> QuantizationScheme | None:
        """The scheme of a source tensor: by the manifest's list, else by the config's targets."""
        stored = self.source.tensors.get(name)
        if not name.endswith(".weight") or stored is None or len(stored.shape) != 2:
            return None
        module = name.removesuffix(".weight")
        if module in (self.config.ignore or ()):
            return None
        for group in self.config.config_groups.values():
            if not isinstance(group, QuantizationScheme) or _stays_in_blocks(group):
                continue
            patterns = [t.removeprefix("re:") for t in group.targets if t.startswith("re:")]
            if any(re.match(pattern, module) for pattern in patterns):
                return group
        return None

    def _faults(self, name: str, names: list[str]) -> Iterator[Problem]:
        if not names:
            return
        missing = [each for each in names if each not in self.written.tensors]
        cut = [e for e in names if e not in missing and not self.written.tensors[e].whole]
        for each in missing:
            yield Problem(tensor=each, problem=f"It is missing; it stands for {name}.")
        for each in cut:
            file = self.written.tensors[each].file
            yield Problem(tensor=each, problem=f"{file} ends before this tensor does.")
        if missing or cut:
            return
        scheme = self._scheme_of(name)
        try:
            if scheme is None:
                yield from self._kept_faults(name)
            else:
                self.packed += 1
                yield from self._packed_faults(name, scheme)
        except (SafetensorError, OSError, RuntimeError, ValueError) as error:
            yield Problem(tensor=names[0], problem=f"It cannot be read: {error}.")

    def _kept_faults(self, name: str) -> Iterator[Problem]:
        here, there = self.written.tensors[written_name(name)], self.source.tensors[name]
        if (here.dtype, here.shape) != (there.dtype, there.shape):
            yield Problem(
                tensor=name,
                problem=f"It is {here.dtype} {list(here.shape)}; the source has {there.dtype} "
                f"{list(there.shape)}.",
            )
            return
        tensor = self.written.tensor(written_name(name))
        if tensor.is_floating_point() and not bool(tensor.float().isfinite().all()):
            yield Problem(tensor=name, problem="It has values that are not finite.")
        smoothed = self.manifest.smoothed if self.manifest else {}
        if name in smoothed:
            if sha256_of(tensor) != smoothed[name]:
                yield Problem(tensor=name, problem="It is not the smoothed value of the manifest.")
        elif self.manifest and sha256_of(tensor) != sha256_of(self.source.tensor(name)):
            yield Problem(tensor=name, problem="It should equal the source's and does not.")

    def _packed_faults(self, name: str, scheme: QuantizationScheme) -> Iterator[Problem]:
        base = name.removesuffix("weight")
        tensors = {suffix: self.written.tensor(base + suffix) for suffix in tensors_of(scheme)}
        scale, shape = tensors["weight_scale"], _shape_of(tensors)
        if shape != self.source.tensors[name].shape:
            wanted = list(self.source.tensors[name].shape)
            where = "weight_shape" if "weight_shape" in tensors else "weight"
            yield Problem(tensor=base + where, problem=f"It says {list(shape)}, not {wanted}.")
            return
        if not bool(scale.isfinite().all()):
            yield Problem(tensor=f"{base}weight_scale", problem="A scale is not finite.")
            return
        if not bool((scale > 0).all()):
            yield Problem(tensor=f"{base}weight_scale", problem="A scale is zero or below.")
            return
        wrong = _wrong_layout(tensors, shape, scheme)
        if wrong is not None:
            yield Problem(tensor=base + wrong, problem="Its shape does not fit the weight's.")
            return
        yield from self._value_faults(name, dequantize(tensors, scheme))

    def _value_faults(self, name: str, value: torch.Tensor) -> Iterator[Problem]:
        scheme = self._scheme_of(name)
        packed_name = name.removesuffix("weight") + (tensors_of(scheme)[0] if scheme else "weight")
        if self.manifest:
            expected = self.manifest.dequantized.get(name)
            if expected is None:
                yield Problem(tensor=packed_name, problem="The manifest does not know this weight.")
            elif sha256_of(value) != expected:
                yield Problem(
                    tensor=packed_name,
                    problem="Its dequantized value is not the one that was quantized.",
                )
        distance = relative_distance(value, self._source_weight(name))
        if not distance < FAR_FROM_SOURCE:
            yield Problem(
                tensor=packed_name,
                problem=f"Its dequantized value is far from the source: {distance:.2f} of its "
                "energy is not explained by any scaling of rows and columns.",
            )

    def _source_weight(self, name: str) -> torch.Tensor:
        """A weight of the source, dequantized where it is stored in FP8 blocks."""
        weight = self.source.tensor(name)
        if weight.dtype != FP8 or self.blocks is None:
            return weight
        return dequantize_blocks(weight, self.source.tensor(scale_name(name)), self.blocks)

    def _changed_files(self) -> Iterator[Problem]:
        for expected in self.manifest.files if self.manifest else []:
            file = self.checkpoint / expected.name
            if not file.is_file():
                yield Problem(tensor=expected.name, problem="The file is missing.")
            elif described(file) != expected:
                yield Problem(tensor=expected.name, problem="The file has changed since export.")


def relative_distance(value: torch.Tensor, source: torch.Tensor) -> float:
    """How far ``value`` is from ``source`` [out, in], as a relative mean squared error, after the
    best scaling of its rows and columns.

    AWQ scales rows and columns of a weight on purpose; a weight under another's name cannot be
    explained by any such scaling. Alternating least squares, a few rounds.
    """
    value, source = value.double(), source.double()
    for _ in range(DIAGONAL_FITS):
        for dim in (0, 1):
            energy = value.square().sum(dim, keepdim=True).clamp_min(1e-30)
            value = value * ((value * source).sum(dim, keepdim=True) / energy)
    return float((value - source).square().sum() / source.square().sum().clamp_min(1e-30))


def _wrong_layout(
    tensors: dict[str, torch.Tensor], shape: tuple[int, ...], scheme: QuantizationScheme
) -> str | None:
    """The suffix of a packed tensor whose shape or dtype does not fit a weight of ``shape``."""
    assert scheme.weights is not None
    rows, columns = shape
    bits, size = scheme.weights.num_bits, scheme.weights.group_size or columns
    scale = tensors["weight_scale"]
    if "weight_packed" in tensors:
        packed = tensors["weight_packed"]
        if packed.dtype != torch.int32 or tuple(packed.shape) != (rows, -(-columns * bits // 32)):
            return "weight_packed"
    elif tensors["weight"].dtype != FP8:
        return "weight"
    if tuple(scale.shape) != (rows, columns // size):
        return "weight_scale"
    return None


def _shape_of(tensors: dict[str, torch.Tensor]) -> tuple[int, ...]:
    if "weight_shape" in tensors:
        return tuple(tensors["weight_shape"].tolist())
    return tuple(tensors["weight"].shape)


def _stays_in_blocks(group: QuantizationScheme) -> bool:
    """Whether a group is the source's own FP8 blocks, which are copied and not made here."""
    return group.weights is not None and group.weights.strategy == QuantizationStrategy.BLOCK


def _quantization_config(checkpoint: Path) -> QuantizationConfig:
    try:
        section: dict[str, Any] = read_config(checkpoint).get("quantization_config") or {}
    except CalibrantError as error:
        raise CheckpointRefused(error.sentence) from error
    if section.get("quant_method") != "compressed-tensors":
        raise CheckpointRefused(
            f"{checkpoint} is not a compressed-tensors checkpoint: its config.json has no such "
            "quantization_config."
        )
    try:
        return QuantizationConfig.model_validate({k: v for k, v in section.items() if k in
                                                  QuantizationConfig.model_fields})  # fmt: skip
    except ValueError as error:
        raise CheckpointRefused(f"{checkpoint}: quantization_config: {error}.") from error


def _reload_problems(checkpoint: Path, source: Path) -> Iterator[Problem]:
    """Missing, unexpected and mismatched keys when transformers loads the checkpoint; what it does
    not expect in the source either was copied from there and is no fault."""
    from transformers import AutoModelForCausalLM

    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            checkpoint, dtype="auto", local_files_only=True, output_loading_info=True
        )
        info = loaded[1]
    except Exception as error:
        first = (str(error).strip() or repr(error)).splitlines()[0]
        yield Problem(tensor=checkpoint.name, problem=f"transformers cannot load it: {first}")
        return
    strangers = _strangers(source)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        for key in sorted(set(map(str, info.get(kind, ()))) - strangers):
            reason = kind.replace("_keys", "")
            yield Problem(tensor=key, problem=f"transformers finds this key {reason}.")


def _strangers(source: Path) -> set[str]:
    """The source's tensors that its model does not load, by their names there and as transformers
    calls them."""
    model = meta_model(source)
    names = checkpoint_names(model, Shards(source).tensors)
    strangers = names.strangers(model.state_dict())
    written = (written_name(each) for each in strangers)
    return {*strangers, *written, *(names.others[each] for each in strangers)}

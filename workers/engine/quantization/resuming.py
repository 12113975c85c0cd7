"""Whether the layers an earlier run finished can be used by this one."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import torch
from transformers import PreTrainedModel

from app.errors import ResumeRefused
from app.jobs import files
from app.jobs.events import Emit, Notice
from app.jobs.spec import JobSpec, Resume
from app.jobs.states import Step
from workers.engine.models.provenance import package_versions, source_of
from workers.engine.quantization.layer_store import STATE, Fingerprint, LayerStore
from workers.engine.rows.calibration_rows import CalibrationRows

BATCH_SIZE = "the batch size"
THREADS = "the number of threads"


def fingerprint(
    spec: JobSpec,
    rows: CalibrationRows,
    held_out: CalibrationRows | None,
    model: PreTrainedModel,
    tokens_a_batch: int,
) -> Fingerprint:
    """What the bits of a quantized layer and its measured errors depend on, in words a person
    knows."""
    return Fingerprint(
        parts={
            **_parts_of_input(spec, rows, held_out),
            "the kind of device": _device_kind(model.device),
            "the dtype": str(model.dtype),
            BATCH_SIZE: str(tokens_a_batch),
        }
    )


def _parts_of_input(
    spec: JobSpec, rows: CalibrationRows, held_out: CalibrationRows | None
) -> dict[str, str]:
    """The parts of a fingerprint that are known before the model is loaded. The number of threads
    is one: products are summed in another order with another number."""
    assert spec.recipe is not None
    recipe = spec.recipe.model_dump_json(exclude={"name", "description"})
    return {
        "the recipe": _sha256(recipe.encode()),
        "the calibration set": _sha256_of_rows(rows),
        "the held-out part": _sha256_of_rows(held_out) if held_out else "none",
        "the source model": source_of(spec.model).fingerprint,
        **{f"the version of {name}": found for name, found in package_versions().items()},
        THREADS: str(torch.get_num_threads()),
        "the seed": str(spec.seed),
    }


def refuse_other_layers(
    spec: JobSpec, rows: CalibrationRows, held_out: CalibrationRows | None
) -> None:
    """Raise ResumeRefused, before the model is loaded and the set profiled, where a run is to go on
    from layers that were made of another input."""
    found = _earlier(spec) if spec.resume == "required" else None
    if found is not None:
        found.require(_parts_of_input(spec, rows, held_out), spec.layers_directory)


def open_store(
    store: LayerStore, current: Fingerprint, resume: Resume, earlier: Path | None, emit: Emit
) -> int:
    """How many finished layers this run starts with: see ``JobSpec``, whose ``layers_from`` is
    ``earlier``.

    Raises ResumeRefused when ``resume`` is ``required`` and they were made of something else.
    """
    directory = store.directory
    if directory is None:
        return 0
    if resume == "never":
        shutil.rmtree(directory, ignore_errors=True)
    elif earlier is not None and not store.was_opened:
        store.adopt(earlier)
    try:
        finished = store.open(current)
    except ResumeRefused as error:
        if resume == "required":
            raise
        emit(Notice(step=Step.QUANTIZE, level="warning", message=error.sentence))
        shutil.rmtree(directory)
        finished = store.open(current)
    if layers := store.layers(finished):
        what = "1 finished layer is" if layers == 1 else f"{layers:,} finished layers are"
        message = f"{what} taken over from the earlier run."
        emit(Notice(step=Step.QUANTIZE, message=message))
    return finished


def kept_bytes(spec: JobSpec, destination: Path) -> int:
    """What a run need not find room for, in bytes: finished layers it can go on from, a checkpoint
    that was written and not verified, and what a killed export left, which the next removes."""
    left = sum(file.stat().st_size for file in partial_of(destination).glob("*"))
    if spec.resume == "never":
        return left
    places = [spec.layers_directory, *([spec.layers_from] if spec.layers_from else [])]
    layers = {file.name: file for place in places for file in place.glob("layer-*")}
    written = destination.glob("*.safetensors")
    return left + sum(file.stat().st_size for file in (*layers.values(), *written))


def tokens_a_batch_of(spec: JobSpec) -> int | None:
    """The batch size of the layers a run may go on from, which is smaller than usual where the
    accelerator's memory was too small; None where there are none."""
    earlier = _earlier(spec)
    return int(earlier.parts[BATCH_SIZE]) if earlier else None


def threads_of(spec: JobSpec) -> int | None:
    """The threads a run is to compute with: those it was told, or those of the layers it may go on
    from; None where it may choose. The cores that are free are fewer just after a run was killed.
    """
    earlier = None if spec.threads else _earlier(spec)
    return int(earlier.parts[THREADS]) if earlier else spec.threads


def _earlier(spec: JobSpec) -> Fingerprint | None:
    """What the layers that a run may go on from were made of; None where there are none."""
    places = [spec.layers_directory, *([spec.layers_from] if spec.layers_from else [])]
    state = next((file for place in places if (file := place / STATE).is_file()), None)
    if spec.resume == "never" or state is None:
        return None
    return Fingerprint.model_validate_json(state.read_bytes())


def drop_layers(spec: JobSpec) -> None:
    """Remove the finished layers of a job that succeeded, and of those it went on from."""
    shutil.rmtree(spec.layers_directory, ignore_errors=True)
    earlier = spec.layers_from
    while earlier is not None:
        shutil.rmtree(earlier, ignore_errors=True)
        written = earlier.parent / files.SPEC
        if not written.is_file():
            return
        earlier = JobSpec.model_validate_json(written.read_bytes()).layers_from


def _device_kind(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _sha256_of_rows(rows: CalibrationRows) -> str:
    return _sha256(
        *(row.input_ids.tobytes() for row in rows.rows),
        *(str(row.sequence).encode() for row in rows.rows if row.sequence is not None),
    )


def _sha256(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def partial_of(destination: Path) -> Path:
    """Where a checkpoint is written until it is whole; a run that was killed leaves it behind."""
    return destination.with_name(f".{destination.name}.partial")

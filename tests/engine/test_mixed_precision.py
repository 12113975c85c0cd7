"""A recipe whose groups divide the layers: what serving engines read of it in the checkpoint."""

from __future__ import annotations

import json
import re
from pathlib import Path

from safetensors import safe_open

from app.jobs.spec import JobSpec, ModuleReport
from app.jobs.states import JobKind
from app.quality.sensitivity import propose
from app.recipes.schema import PRESETS
from tests.engine.conftest import Job, run_job


def test_a_proposal_is_quantized_and_every_name_is_of_one_group(
    job: Job, source: Path, rows_file: Path, folder: Path
) -> None:
    recipe = PRESETS["experts-w4a16-g32"].model_copy(update={"grid": 3})
    now = job.result.bytes_after or 0
    modules = json.loads((job.spec.directory / "modules.json").read_text(encoding="utf-8"))
    parsed = [ModuleReport.model_validate(module) for module in modules]
    one_layer = sum((m.rows or 0) * (m.columns or 0) for m in parsed) // 4
    found = propose(recipe, parsed, job.result.layers, now, now + one_layer + 1000, {})
    assert [step.bits_after for step in found.steps] == [8]
    mixed = run_job(
        JobSpec(
            job_id="mixed",
            kind=JobKind.QUANTIZE,
            directory=folder / "mixed",
            sets_dir=folder / "sets",
            model=source,
            calibration=rows_file,
            recipe=found.recipe,
            threads=1,
        )
    )
    assert mixed.result.verification
    assert mixed.result.verification.ok
    assert abs((mixed.result.bytes_after or 0) - found.size) < 0.01 * found.size
    checkpoint = mixed.spec.directory / "checkpoint"
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    groups = config["quantization_config"]["config_groups"]
    bits = {name: group["weights"]["num_bits"] for name, group in groups.items()}
    with safe_open(checkpoint / "model.safetensors", framework="pt") as tensors:
        packed = [n.removesuffix(".weight_packed") for n in tensors.keys() if "_packed" in n]  # noqa: SIM118
        shapes = {n: tensors.get_slice(f"{n}.weight_packed").get_shape() for n in packed}
        dense = {n: tensors.get_tensor(f"{n}.weight_shape").tolist() for n in packed}
    assert len(packed) == 48
    for name in packed:
        matching = [
            group for group, scheme in groups.items()
            if any(re.match(target.removeprefix("re:"), name) for target in scheme["targets"])
        ]  # fmt: skip
        assert len(matching) == 1, f"{name} is of {matching}"
        words = dense[name][1] * bits[matching[0]] // 32
        assert shapes[name][1] == words, name

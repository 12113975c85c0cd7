"""Each way a checkpoint can be broken is found and named by tensor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.errors import CheckpointRefused, ModelRefused
from app.jobs.spec import Problem, Verification
from app.recipes.schema import EXPERTS, Group, Recipe
from tests.engine import tiny_models
from tests.engine.conftest import Job
from tests.engine.made_checkpoints import quantized
from workers.engine.checkpoints.export import export
from workers.engine.checkpoints.manifest import MANIFEST
from workers.engine.checkpoints.verification import relative_distance, verify
from workers.engine.formats.safetensors_files import INDEX
from workers.engine.rows.batches import pack

EXPERT = "model.layers.1.block_sparse_moe.experts.5"
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def checkpoint(job: Job, tmp_path: Path) -> Path:
    return shutil.copytree(job.result.checkpoint, tmp_path / "checkpoint")


def tampered(checkpoint: Path, change: Callable[[Tensors], object]) -> Path:
    tensors = load_file(checkpoint / "model.safetensors")
    change(tensors)
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    return checkpoint


def named(found: Verification) -> dict[str, str]:
    assert not found.ok
    return {fault.tensor: fault.problem for fault in found.problems}


def test_a_good_checkpoint_accounts_for_every_tensor(job: Job) -> None:
    found = verify(job.result.checkpoint, job.spec.model)
    tensors = load_file(job.spec.model / "model.safetensors")
    assert found == Verification(ok=True, tensors=len(tensors), quantized=48, problems=[])


def test_a_tensor_in_two_files_is_found(job: Job, checkpoint: Path) -> None:
    """Engines read every file there is, and take the last one."""
    shutil.copy(checkpoint / "model.safetensors", checkpoint / "model-2.safetensors")
    found = named(verify(checkpoint, job.spec.model))
    assert found[f"{EXPERT}.w2.weight_packed"] == "It is in more than one file."


def test_an_index_that_does_not_fit_its_files_is_found(job: Job, checkpoint: Path) -> None:
    index = {
        "weight_map": {"model.norm.weight": "model.safetensors", "no.such": "model.safetensors"}
    }
    (checkpoint / INDEX).write_text(json.dumps(index), encoding="utf-8")
    found = named(verify(checkpoint, job.spec.model))
    assert found["no.such"] == f"{INDEX} says that it is in model.safetensors, and it is not."
    assert found[f"{EXPERT}.w2.weight_packed"] == f"{INDEX} does not name it."
    assert "model.norm.weight" not in found


def test_progress_is_told(job: Job) -> None:
    told: list[tuple[int, int]] = []
    verify(job.result.checkpoint, job.spec.model, lambda *x: told.append(x), reload=False)
    assert told
    assert told[0][1] == len(load_file(job.spec.model / "model.safetensors"))


def flip(name: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors[name].view(-1)[:1].add_(1)


def swap(tensors: Tensors) -> None:
    for part in ("packed", "scale"):
        one, two = f"{EXPERT}.w1.weight_{part}", f"{EXPERT}.w3.weight_{part}"
        tensors[one], tensors[two] = tensors[two], tensors[one]


@pytest.mark.parametrize(
    ("change", "tensor", "problem"),
    [
        (flip(f"{EXPERT}.w2.weight_packed"), f"{EXPERT}.w2.weight_packed", "not the one that was"),
        (flip(f"{EXPERT}.w2.weight_scale"), f"{EXPERT}.w2.weight_packed", "not the one that was"),
        (flip("model.layers.0.self_attn.q_proj.weight"),
         "model.layers.0.self_attn.q_proj.weight", "should equal the source's"),
        (flip("model.layers.0.block_sparse_moe.gate.weight"),
         "model.layers.0.block_sparse_moe.gate.weight", "not the smoothed value"),
        (lambda t: t.update({"a.name": t.pop(f"{EXPERT}.w2.weight_packed")}),
         f"{EXPERT}.w2.weight_packed", "is missing"),
        (lambda t: t.update({"a.name": t.pop(f"{EXPERT}.w2.weight_packed")}),
         "a.name", "has no tensor"),
        (lambda t: t[f"{EXPERT}.w1.weight_scale"].view(-1)[3:4].fill_(float("nan")),
         f"{EXPERT}.w1.weight_scale", "not finite"),
        (lambda t: t[f"{EXPERT}.w1.weight_scale"].view(-1)[3:4].fill_(0),
         f"{EXPERT}.w1.weight_scale", "zero or below"),
        (lambda t: t[f"{EXPERT}.w1.weight_shape"].fill_(7), f"{EXPERT}.w1.weight_shape", "It says"),
        (lambda t: t.update({f"{EXPERT}.w1.weight_scale": t[f"{EXPERT}.w1.weight_scale"][:4]}),
         f"{EXPERT}.w1.weight_scale", "does not fit"),
        (lambda t: t.update({"lm_head.weight": t["lm_head.weight"].float()}),
         "lm_head.weight", "the source has torch.bfloat16"),
        (lambda t: t["model.norm.weight"].fill_(float("inf")),
         "model.norm.weight", "not finite"),
        (swap, f"{EXPERT}.w1.weight_packed", "far from the source"),
    ],
)  # fmt: skip
def test_tampering_is_found_and_named(
    job: Job, checkpoint: Path, change: Callable[[Tensors], object], tensor: str, problem: str
) -> None:
    found = verify(tampered(checkpoint, change), job.spec.model)
    problems = [f for f in found.problems if f.tensor == tensor]
    assert any(problem in fault.problem for fault in problems), found.problems
    assert named(found)["model.safetensors"] == "The file has changed since export."
    others = {f.tensor for f in found.problems} - {tensor, "model.safetensors"}
    assert len(others) <= 1, "the fault is named, and no sound tensor beside it"


@pytest.mark.parametrize("cut", [1, 40_000])
def test_a_truncated_file_names_the_tensors_it_lost(job: Job, checkpoint: Path, cut: int) -> None:
    file = checkpoint / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-cut])
    problems = named(verify(checkpoint, job.spec.model))
    lost = [name for name, problem in problems.items() if "ends before this tensor" in problem]
    assert lost
    assert all(name.startswith("model.") or name == "lm_head.weight" for name in lost)


@pytest.mark.parametrize("data", [b"", b"\xff" * 8, b"\x10\0\0\0\0\0\0\0{not json......}"])
def test_a_file_that_is_no_safetensors(job: Job, checkpoint: Path, data: bytes) -> None:
    (checkpoint / "model.safetensors").write_bytes(data)
    faults = verify(checkpoint, job.spec.model).problems
    assert faults[0].tensor == "model.safetensors"
    assert "cannot be read" in faults[0].problem
    assert sum("is missing" in fault.problem for fault in faults) > 100


def test_a_changed_side_file_is_found(job: Job, checkpoint: Path) -> None:
    (checkpoint / "chat_template.jinja").write_text("{{ evil }}", encoding="utf-8")
    (checkpoint / "LICENSE").unlink()
    problems = named(verify(checkpoint, job.spec.model))
    assert problems == {
        "chat_template.jinja": "The file has changed since export.",
        "LICENSE": "The file is missing.",
    }


def test_without_a_manifest_wrong_weights_are_still_far(job: Job, checkpoint: Path) -> None:
    (checkpoint / MANIFEST).unlink()
    found = verify(checkpoint, job.spec.model)
    assert found.ok
    [unchecked] = found.unchecked
    assert unchecked.startswith("It has no calibrant.json: whether the packed weights are those")
    problems = named(verify(tampered(checkpoint, swap), job.spec.model))
    assert problems.keys() == {f"{EXPERT}.w1.weight_packed", f"{EXPERT}.w3.weight_packed"}


def test_scales_found_from_one_token_are_not_far(
    saved: Callable[[str], Path], tmp_path: Path
) -> None:
    source = saved("olmoe")
    recipe = Recipe(name="r", groups=(Group(name="g", targets=(EXPERTS,), group_size=None),))
    model, done = quantized(source, recipe, pack(tiny_models.rows_of(1), 64))
    checkpoint = export(model, done, source, "s", tmp_path / "checkpoint").directory
    found = verify(checkpoint, source)
    assert (found.ok, found.problems) == (True, [])


def test_another_source_is_noticed(job: Job, checkpoint: Path, tmp_path: Path) -> None:
    model = tiny_models.tiny_model(tiny_models.minimax_m2(), torch.bfloat16, seed=5)
    other = tiny_models.save(model, tmp_path / "other")
    shutil.copyfile(job.spec.model / "config.json", other / "config.json")
    found = verify(checkpoint, other)
    assert not found.ok
    assert sum("far from the source" in fault.problem for fault in found.problems) == 48


def test_a_broken_config_that_cannot_be_reloaded(job: Job, checkpoint: Path) -> None:
    file = checkpoint / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["num_hidden_layers"] = 3
    file.write_text(json.dumps(config), encoding="utf-8")
    (checkpoint / MANIFEST).unlink()
    found = verify(checkpoint, job.spec.model)
    assert Problem(
        tensor="model.layers.2.input_layernorm.weight",
        problem="transformers finds this key missing.",
    ) in found.problems  # fmt: skip


def test_what_is_no_checkpoint_or_no_source(job: Job, tmp_path: Path) -> None:
    with pytest.raises(CheckpointRefused, match="no checkpoint at"):
        verify(tmp_path / "nothing", job.spec.model)
    with pytest.raises(CheckpointRefused, match="not a compressed-tensors checkpoint"):
        verify(job.spec.model, job.spec.model)
    with pytest.raises(ModelRefused):
        verify(job.result.checkpoint, tmp_path)


def test_distance_forgives_scaled_rows_and_columns_only() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, other = torch.randn(2, 24, 48, generator=generator).unbind()
    rows = torch.rand(24, 1, generator=generator) + 0.3
    columns = torch.rand(1, 48, generator=generator) + 0.3
    assert relative_distance(weight * rows * columns, weight) < 1e-4
    assert relative_distance(other, weight) > 0.7

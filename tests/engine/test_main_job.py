"""A job from its spec to its result, and what it leaves on disk."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import PreTrainedModel

from app.calibration.spec import SetSpec
from app.coverage.profile import Profile
from app.errors import CalibrantError, CompositionRefused, ModelRefused, RecipeRefused
from app.jobs.events import Notice, Progress, StepFinished, StepStarted, parse
from app.jobs.preflight import Preflight
from app.jobs.spec import Evaluation, JobResult, JobSpec, ModuleReport, Verification
from app.jobs.states import STEPS, JobKind, Step
from app.recipes.schema import ATTENTION, PRESETS, Group, Recipe
from app.settings import ROOT
from app.sources.entry import FolderOrigin, SourceEntry
from tests.engine.conftest import Job, run_job
from tests.engine.tiny_models import DENSE, FUSED, save, tiny_model
from workers.engine import run as run_module
from workers.engine import steps
from workers.engine.main_job import run
from workers.engine.models.resting import load_resting, rests_on_disk
from workers.engine.preflight.resources import LIBRARIES_BYTES


def spec_for(directory: Path, model: Path, rows: Path, **changes: object) -> JobSpec:
    fields = {
        "job_id": "test", "kind": JobKind.QUANTIZE, "directory": directory / "job",
        "sets_dir": directory / "sets", "model": model, "calibration": rows,
        "recipe": PRESETS["experts-w4a16-g32"], "threads": 1, **changes,
    }  # fmt: skip
    return JobSpec.model_validate(fields)


def test_the_steps_run_in_order_and_are_told(job: Job) -> None:
    started = [event.step for event in job.events if isinstance(event, StepStarted)]
    finished = [event.step for event in job.events if isinstance(event, StepFinished)]
    assert started == finished == list(STEPS[JobKind.QUANTIZE])
    assert all(parse(event.model_dump_json()) == event for event in job.events)


def test_the_result_is_whole(job: Job) -> None:
    result = job.result
    assert (result.experts_reached, result.experts_total) == (16, 16)
    assert [layer.layer for layer in result.layers] == [0, 1]
    assert result.evaluation is not None
    assert 0 < result.evaluation.kl_mean < 0.1
    assert result.verification is not None
    assert result.verification.ok
    assert result.bytes_after < result.bytes_before
    assert result.cpu_seconds > 0


def test_artifacts_are_readable_by_the_pages(job: Job) -> None:
    directory = job.spec.directory
    read = {name: (directory / name).read_bytes() for name in (
        "result.json", "evaluation.json", "verification.json", "modules.json", "layers.json",
    )}  # fmt: skip
    assert JobResult.model_validate_json(read["result.json"]) == job.result
    assert Evaluation.model_validate_json(read["evaluation.json"]) == job.result.evaluation
    assert Verification.model_validate_json(read["verification.json"]).ok
    modules = [ModuleReport.model_validate(each) for each in json.loads(read["modules.json"])]
    assert len(modules) == 48
    assert Profile.load(directory / "coverage.npz").total_tokens == job.result.set_tokens
    assert not [file for file in directory.iterdir() if file.name.startswith(".")]


def test_the_same_job_gives_the_same_bytes(job: Job, tmp_path: Path) -> None:
    again = run_job(job.spec.model_copy(update={"directory": tmp_path / "job"}))
    assert again.result.files == job.result.files
    assert again.result.evaluation == job.result.evaluation


def test_a_profile_job_needs_no_recipe(source: Path, rows_file: Path, tmp_path: Path) -> None:
    done = run_job(spec_for(tmp_path, source, rows_file, kind=JobKind.PROFILE, recipe=None))
    assert done.result.experts_reached == 16
    assert done.result.checkpoint is None
    assert sorted(f.name for f in done.spec.directory.iterdir()) == ["coverage.npz", "result.json"]


def test_a_preflight_job_says_what_the_main_job_would_do(job: Job, tmp_path: Path) -> None:
    asked = {"kind": JobKind.PREFLIGHT, "held_out": None, "checkpoint": tmp_path / "checkpoint"}
    looked = run_job(job.spec.model_copy(update={"directory": tmp_path / "job", **asked}))
    found = looked.result.preflight
    assert found is not None
    assert (found.ok, found.errors, found.router_safe) == (True, [], True)
    assert (found.rows, found.tokens) == (job.result.set_rows, job.result.set_tokens)
    modules = json.loads((job.spec.directory / "modules.json").read_bytes())
    assert found.quantized_modules == len(modules)
    written = (looked.spec.directory / "preflight.json").read_bytes()
    assert Preflight.model_validate_json(written) == found
    assert not (tmp_path / "checkpoint").exists()


def test_what_would_refuse_the_main_job_is_a_finding_of_the_preflight(
    source: Path, rows_file: Path, tmp_path: Path
) -> None:
    nothing = Recipe(name="nothing", groups=(Group(name="none", targets=("^no_such$",)),))
    done = run_job(spec_for(tmp_path, source, rows_file, kind=JobKind.PREFLIGHT, recipe=nothing))
    assert done.result.preflight is not None
    assert not done.result.preflight.ok
    assert "no_such" in done.result.preflight.errors[0]
    warned = [event.message for event in done.events if isinstance(event, Notice)]
    assert done.result.preflight.errors[0] in warned


def test_without_held_out_rows_the_error_is_not_measured(
    source: Path, rows_file: Path, tmp_path: Path
) -> None:
    done = run_job(spec_for(tmp_path, source, rows_file))
    assert done.result.evaluation is None
    assert any(isinstance(e, Notice) and "not measured" in e.message for e in done.events)


def test_a_dense_model_can_be_quantized_and_coverage_says_so(
    rows_file: Path, tmp_path: Path
) -> None:
    model = save(tiny_model(DENSE["llama"]()), tmp_path / "llama")
    recipe = Recipe(name="attention", groups=(Group(name="a", targets=(ATTENTION,), bits=8),))
    done = run_job(spec_for(tmp_path, model, rows_file, recipe=recipe))
    assert done.result.experts_total == 0
    assert done.result.verification is not None
    assert done.result.verification.ok
    assert any(isinstance(e, Notice) and "dense" in e.message for e in done.events)


@pytest.mark.parametrize("recipe", [None, "linears-w4a16-g128"])
def test_what_cannot_work_is_refused_in_the_first_step(
    source: Path, rows_file: Path, tmp_path: Path, recipe: str | None
) -> None:
    chosen = PRESETS[recipe] if recipe else None
    events: list[object] = []
    with pytest.raises(RecipeRefused):
        run(spec_for(tmp_path, source, rows_file, recipe=chosen), events.append)
    assert [event.step for event in events if isinstance(event, StepStarted)] == [Step.BUILD]


def test_held_out_rows_that_predict_nothing_are_refused_in_the_first_step(
    source: Path, rows_file: Path, tmp_path: Path
) -> None:
    held_out = tmp_path / "held-out.jsonl"
    held_out.write_text('{"text": "a"}\n{"text": "b"}\n', encoding="utf-8")
    events: list[object] = []
    with pytest.raises(CompositionRefused, match="two tokens"):
        run(spec_for(tmp_path, source, rows_file, held_out=held_out), events.append)
    assert [event.step for event in events if isinstance(event, StepStarted)] == [Step.BUILD]


def test_a_checkpoint_that_does_not_verify_fails_the_job(
    source: Path, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = {"tensor": "a.weight", "problem": "It is odd."}
    broken = Verification(ok=False, tensors=1, quantized=0, problems=[fault])
    monkeypatch.setattr("workers.engine.steps.verify", lambda *_: broken)
    spec = spec_for(tmp_path, source, rows_file)
    with pytest.raises(CalibrantError, match=r"a\.weight: It is odd"):
        run_job(spec)
    written = (spec.directory / "verification.json").read_bytes()
    assert Verification.model_validate_json(written) == broken


def test_a_job_tells_which_source_it_fetches(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    for number in range(3):
        (tmp_path / "texts" / f"{number}.txt").write_text(f"Text number {number} is short.")
    origin = FolderOrigin(path=tmp_path / "texts")
    entry = SourceEntry(name="texts", origin=origin, formatter="raw_text", columns=("text",))
    part = {"name": "all", "rows": "all"}
    done = run_job(
        JobSpec(
            job_id="fetching",
            kind=JobKind.BUILD,
            directory=tmp_path / "job",
            sets_dir=tmp_path / "sets",
            sources=[entry],
            model=ROOT / "demo" / "model",
            calibration=SetSpec.model_validate(
                {"name": "texts", "sources": ["texts"], "slices": [part]}
            ),
        )
    )
    far = [event for event in done.events if isinstance(event, Progress)]
    assert [(one.unit, one.done, one.total, one.source, one.read) for one in far[:2]] == [
        ("sources", 0, 1, "texts", 0),
        ("sources", 0, 1, "texts", 3),
    ]
    assert {one.unit for one in far[2:]} == {"rows"}


def test_a_model_larger_than_memory_gives_the_same_checkpoint(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = SimpleNamespace(total=LIBRARIES_BYTES)  # of a machine that holds no weight beside them
    monkeypatch.setattr("workers.engine.device.psutil.virtual_memory", lambda: memory)
    changes = {"directory": tmp_path / "job", "checkpoint": None}
    spec = job.spec.model_copy(update=changes)
    rested: list[bool] = []

    def load(*given: Any) -> PreTrainedModel:
        model = load_resting(*given)
        rested.append(rests_on_disk(model))
        return model

    monkeypatch.setattr("workers.engine.run.load_resting", load)
    again = run_job(spec)
    assert rested == [True]
    assert again.result.files == job.result.files
    assert again.result.evaluation is not None
    assert job.result.evaluation is not None
    kl = job.result.evaluation.kl_mean
    assert again.result.evaluation.kl_mean == pytest.approx(kl, rel=1e-3)
    assert not list(spec.directory.glob(".weights-*"))


def test_experts_that_cannot_rest_on_disk_are_refused_first(
    tmp_path: Path, rows_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save(tiny_model(FUSED["granite_moe"]()), tmp_path / "model")
    memory = SimpleNamespace(total=LIBRARIES_BYTES)
    monkeypatch.setattr("workers.engine.device.psutil.virtual_memory", lambda: memory)
    recipe = Recipe(name="a", groups=(Group(name="a", targets=(ATTENTION,), bits=8),))
    with pytest.raises(ModelRefused, match="has no tensor of its own"):
        run_job(spec_for(tmp_path, source, rows_file, recipe=recipe))


def test_the_model_is_let_go_before_the_checkpoint_is_verified(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[weakref.ref[PreTrainedModel]] = []
    load, verify, alive = run_module.load_for_computing, steps.verify, []

    def watched(*given: Any) -> PreTrainedModel:
        model = load(*given)
        loaded.append(weakref.ref(model))
        return model

    def verified(*given: Any) -> Verification:
        alive.extend(each() is not None for each in loaded)
        return verify(*given)

    monkeypatch.setattr(run_module, "load_for_computing", watched)
    monkeypatch.setattr(steps, "verify", verified)
    run_job(job.spec.model_copy(update={"directory": tmp_path / "job", "checkpoint": None}))
    assert alive == [False]

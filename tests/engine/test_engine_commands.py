"""The engine's commands: one JSON document on stdout, sentences on stderr, exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.jobs.events import Notice, parse
from app.jobs.states import Step
from tests.engine.conftest import DiskOf, Job
from workers.bars import shown_events
from workers.commands import app
from workers.engine.device import compute_device
from workers.in_process import kept_beside


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def document(result: Result) -> dict[str, object]:
    assert result.exit_code == 0, result.stderr
    return dict(json.loads(result.stdout))


def test_coverage(source: Path, rows_file: Path, tmp_path: Path) -> None:
    arguments = ("coverage", "--model", source, "--set", rows_file, "--by", "domain", "--json")
    found = document(call(*arguments, "--out", tmp_path))
    assert {"tokens", "top_k", "layers", "starved", "slices"} <= found.keys()
    assert found["top_k"] == 2
    assert set(found["slices"]) == {"code", "law"}
    assert (tmp_path / "coverage.npz").is_file()


def test_coverage_against_another_set(source: Path, rows_file: Path, held_out_file: Path) -> None:
    arguments = ("coverage", "--model", source, "--set", rows_file, "--json")
    found = document(call(*arguments, "--against", held_out_file))
    assert found["against"]["tokens"] != found["tokens"]
    assert 0 < found["moved"] < 1
    for layer in found["difference"]:
        assert abs(sum(layer["experts"])) < 1e-4
    same = document(call(*arguments, "--against", rows_file))
    assert same["moved"] == 0


def test_coverage_refuses_the_other_set_before_it_counts(source: Path, rows_file: Path) -> None:
    arguments = ("coverage", "--model", source, "--set", rows_file)
    refused = call(*arguments, "--against", "/nothing")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("There is no calibration set at /nothing")


def test_coverage_for_a_person(source: Path, rows_file: Path) -> None:
    said = call("coverage", "--model", source, "--set", rows_file)
    assert "16 of 16 reached" in said.stdout


def test_select_from_a_file(source: Path, rows_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "chosen.jsonl"
    arguments = ("select", "--model", source, "--pool", rows_file, "--budget", 400, "--json")
    found = document(call(*arguments, "--out", out))
    assert {"rows", "tokens", "worst1pct_tokens", "id"} <= found.keys()
    assert set(found["worst1pct_tokens"]) == {"random", "selected"}
    assert 0 < found["tokens"] <= 400
    lines = out.read_text(encoding="utf-8").splitlines()
    assert len(lines) == found["rows"]
    assert set(lines) <= set(rows_file.read_text(encoding="utf-8").splitlines())
    again = call(*arguments, "--out", out)
    assert (again.exit_code, "is there already" in again.stderr) == (2, True)
    assert document(call(*arguments))["id"] == found["id"]


def test_select_refuses_a_place_it_cannot_write_to_before_it_counts(
    source: Path, rows_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.commands.run_here", lambda *_: pytest.fail("rows were counted"))
    arguments = ("select", "--model", source, "--pool", rows_file, "--budget", 400)
    refused = call(*arguments, "--out", "/proc/chosen.jsonl")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("Nothing can be written into /proc: ")


def test_select_refuses_a_budget_larger_than_the_pool(source: Path, rows_file: Path) -> None:
    said = call("select", "--model", source, "--pool", rows_file, "--budget", 10**6)
    assert said.exit_code == 2
    assert "there is nothing to choose" in said.stderr


def test_quantize(source: Path, rows_file: Path, held_out_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "quantized"
    arguments = ("quantize", "--model", source, "--set", rows_file, "--out", out, "--json")
    found = document(call(*arguments, "--held-out", held_out_file, "--threads", 1))
    assert {"checkpoint", "seconds", "cpu_seconds", "layers", "uncovered_experts",
            "events"} <= found.keys()  # fmt: skip
    assert found["checkpoint"] == str(out)
    assert {"layer", "relative_mse", "sqnr_db"} <= found["layers"][0].keys()
    assert 10 < found["layers"][0]["output_sqnr_db"] < 60
    events = Path(str(found["events"])).read_text(encoding="utf-8").splitlines()
    assert len([parse(line) for line in events]) > 20
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "quantized",
        "quantized.events.jsonl",
    ]
    again = call(*arguments)
    assert again.exit_code == 2
    assert "is not empty" in again.stderr
    on = call(*arguments, "--resume")
    assert (on.exit_code, on.stdout) == (2, "")
    assert on.stderr.startswith(f"{out} is whole already, so there is nothing to go on with")
    assert Path(str(found["events"])).read_text(encoding="utf-8").splitlines() == events


def test_a_refused_quantize_leaves_nothing(source: Path, rows_file: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("{name: r, groups: [{name: g, targets: ['.*nothing$']}]}", encoding="utf-8")
    refused = call("quantize", "--model", source, "--set", rows_file, "--out", tmp_path / "out",
                   "--recipe", recipe)  # fmt: skip
    assert refused.exit_code == 2
    assert "matches no Linear module" in refused.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["recipe.yaml"]


def test_evaluate(job: Job, held_out_file: Path) -> None:
    found = document(
        call("evaluate", "--base", job.spec.model, "--checkpoint", job.result.checkpoint,
             "--set", held_out_file, "--json")
    )  # fmt: skip
    assert {"kl_mean", "kl_low", "kl_high", "perplexity_base", "perplexity", "slices",
            "router_same"} <= found.keys()  # fmt: skip
    in_memory = job.result.evaluation
    assert in_memory is not None
    # An accelerator computes in bfloat16, and loaded experts are fused again.
    tolerance = 1e-3 if compute_device().type == "cpu" else 0.25
    assert found["kl_mean"] == pytest.approx(in_memory.kl_mean, rel=tolerance)


def test_evaluate_refuses_before_it_loads_a_weight(
    job: Job, held_out_file: Path, saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*_: object) -> None:
        pytest.fail("a model was loaded")

    monkeypatch.setattr("workers.engine.run.load_for_computing", too_late)
    base, rows = ("--base", job.spec.model), ("--set", held_out_file)
    missing = call("evaluate", *base, *rows, "--checkpoint", "/nothing")
    assert (missing.exit_code, "/nothing" in missing.stderr) == (2, True)
    other = call("evaluate", *base, *rows, "--checkpoint", saved("deepseek_v3"))
    assert (other.exit_code, "was made from another model" in other.stderr) == (2, True)
    taken = call("evaluate", *base, *rows, "--checkpoint", job.result.checkpoint,
                 "--out", held_out_file)  # fmt: skip
    assert (taken.exit_code, "File exists" in taken.stderr) == (2, True)
    closed = call("evaluate", *base, *rows, "--checkpoint", job.result.checkpoint, "--out", "/proc")
    assert closed.exit_code == 2
    assert closed.stderr.startswith("Nothing can be written into /proc: ")
    seed = call("evaluate", *base, *rows, "--checkpoint", job.result.checkpoint, "--seed", -1)
    assert (seed.exit_code, "--seed" in seed.stderr) == (2, True)


def test_evaluate_draws_no_librarys_bar(job: Job, held_out_file: Path) -> None:
    arguments = ("--base", job.spec.model, "--checkpoint", job.result.checkpoint)
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "evaluate", *map(str, arguments), "--set",
         str(held_out_file), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert json.loads(done.stdout)["rows"] > 0


def test_verify_exits_1_when_something_is_wrong(job: Job, tmp_path: Path) -> None:
    found = document(call("verify", job.result.checkpoint, "--source", job.spec.model, "--json"))
    assert (found["ok"], found["quantized"], found["problems"]) == (True, 48, [])
    broken = shutil.copytree(job.result.checkpoint, tmp_path / "broken")
    (broken / "calibrant.json").rename(tmp_path / "calibrant.json")
    bare = call("verify", broken, "--source", job.spec.model)
    assert (bare.exit_code, "The checkpoint holds." in bare.stdout) == (0, False)
    assert "not checked   It has no calibrant.json: " in bare.stdout
    (tmp_path / "calibrant.json").rename(broken / "calibrant.json")
    (broken / "LICENSE").unlink()
    result = call("verify", broken, "--source", job.spec.model, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["problems"][0]["tensor"] == "LICENSE"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("coverage", "--model", "/nothing", "--set", "/rows"), "There is no model directory"),
        (("verify", "/nothing", "--source", "/nothing"), "There is no model directory"),
    ],
)
def test_refused_input_exits_2_with_a_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    result = call(*arguments, "--json")
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stdout == ""


def test_a_full_disk_is_a_sentence_and_no_half_file(
    source: Path, rows_file: Path, disk_of: DiskOf
) -> None:
    disk = disk_of("64k")
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free))
    for command in (
        ("export-recipe", "--model", source, "--out", disk / "recipe.yaml"),
        ("quantize", "--model", source, "--set", rows_file, "--out", disk / "quantized"),
    ):
        refused = call(*command)
        assert refused.exit_code == 2
        assert refused.stderr.startswith("There is no room left on the disk")
    assert [file.name for file in disk.iterdir()] == ["filler"]


@pytest.mark.parametrize("out", ["/", "."])
def test_a_directory_that_is_no_place_for_a_checkpoint(
    source: Path, rows_file: Path, out: str
) -> None:
    refused = call("quantize", "--model", source, "--set", rows_file, "--out", out)
    assert (refused.exit_code, "is there already" in refused.stderr) == (2, True)


def test_what_a_job_says_is_shown_as_it_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    said = f"The tensor [64, 32] {'and all of its words ' * 6}stay on one line."
    with shown_events() as show:
        show(Notice(step=Step.BUILD, message=said))
    assert capsys.readouterr().err == f"{said}\n"


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, workers.commands; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_stdout_has_the_document_alone(source: Path, rows_file: Path) -> None:
    code = "from workers.commands import app; app()"
    command = [sys.executable, "-c", code, "coverage", "--model", str(source), "--set",
               str(rows_file), "--json"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=True)
    assert json.loads(done.stdout)["top_k"] == 2


def test_preflight(source: Path, rows_file: Path, tmp_path: Path) -> None:
    found = document(call("preflight", "--model", source, "--set", rows_file, "--json"))
    assert found["ok"] is True
    assert found["targets"][0]["matches"] == found["quantized_modules"] == 48
    said = call("preflight", "--model", source, "--set", rows_file)
    assert "The job can run." in said.stdout
    assert "smoothed: 16 model.layers.*.mlp.experts.*.up_proj" in said.stdout
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("{name: r, groups: [{name: g, targets: ['.*nothing$']}]}", encoding="utf-8")
    refused = call("preflight", "--model", source, "--recipe", recipe, "--json")
    assert refused.exit_code == 2
    assert "matches no Linear module" in json.loads(refused.stdout)["errors"][0]


@pytest.mark.parametrize("how", [(), ("--resume",)])
def test_two_runs_towards_one_directory_do_not_meet(
    source: Path, rows_file: Path, tmp_path: Path, how: tuple[str, ...]
) -> None:
    out = tmp_path / "quantized"
    arguments = ("quantize", "--model", source, "--set", rows_file, "--out", out, *how)
    with kept_beside(out, resume=False) as directory:
        (directory / "mine").touch()
        refused = call(*arguments)
        assert (refused.exit_code, "is at work" in refused.stderr) == (2, True)
        assert (directory / "mine").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_run_is_not_overwritten_by_accident(
    source: Path, rows_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "quantized"
    layers = tmp_path / ".quantized.calibrant" / "layers"
    layers.mkdir(parents=True)
    (layers / "layer-0000.json").write_text("{}", encoding="utf-8")
    refused = call("quantize", "--model", source, "--set", rows_file, "--out", out)
    assert refused.exit_code == 2
    assert "go on with --resume" in refused.stderr

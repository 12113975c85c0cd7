"""``calibrant`` on the demo model, as scripts use it: one JSON document, the promised keys."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from app.settings import ROOT
from tests.integration.server import calibrant

MODEL = ROOT / "demo" / "model"


def document(data_dir: Path, *arguments: str) -> Any:
    done = calibrant(data_dir, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("commands")


@pytest.fixture(scope="module")
def composition(place: Path) -> Path:
    file = place / "small.yaml"
    file.write_text(
        """
name: small
token_budget: 3000
max_length: 256
slices:
  - {name: code, weight: 2, facets: {programming_language: [Rust, Go, Pony]},
     balance: programming_language}
  - {name: German, weight: 1, facets: {spoken_language: [de]}}
"""
    )
    return file


@pytest.fixture(scope="module")
def built(place: Path, composition: Path) -> Any:
    return document(place, "sets", "build", str(composition), "--model", str(MODEL))


@pytest.fixture(scope="module")
def quantizing(place: Path, built: Any) -> subprocess.CompletedProcess[str]:
    rows = str(place / "sets" / built["id"])
    out = str(place / "checkpoint")
    return calibrant(
        place, "quantize", "--model", str(MODEL), "--set", rows, "--recipe", "experts-w4a16-g32",
        "--out", out, "--json",
    )  # fmt: skip


@pytest.fixture(scope="module")
def quantized(quantizing: subprocess.CompletedProcess[str]) -> Any:
    assert quantizing.returncode == 0, quantizing.stderr
    return json.loads(quantizing.stdout)


def test_sets_audit_of_a_built_set(place: Path, built: Any) -> None:
    report = document(place, "sets", "audit", built["id"])
    assert (report["set_id"], report["rows"], report["tokens"]) == (
        built["id"], built["rows"], built["tokens"],
    )  # fmt: skip
    assert report["asked_in_vain"]["programming_language"] == ["Pony"]
    assert {truth["value"] for truth in report["facets"]["programming_language"]} >= {"Rust", "Go"}
    assert sum(role["tokens"] for role in report["roles"]) == report["tokens"]
    again = document(place, "sets", "audit", str(place / "sets" / built["id"]))
    assert again == report


def test_sets_audit_of_a_composition_says_what_it_shows_of_itself(
    place: Path, composition: Path
) -> None:
    report = document(place, "sets", "audit", str(composition))
    assert (report["is_planned"], report["set_id"], report["slices"]) == (True, None, 2)
    assert report["named_but_absent"] == {"spoken_language": [], "programming_language": []}
    refused = calibrant(place, "sets", "audit", "none", "--json")
    assert (refused.returncode, refused.stdout) == (2, "")


def test_sets_build_says_what_is_in_the_set(built: Any) -> None:
    assert set(built) >= {"id", "manifest", "rows", "tokens", "facets", "set_aside"}
    assert 0 < built["tokens"] <= 3000
    languages = built["facets"]["programming_language"]
    assert languages["Rust"]["fed_tokens"] > 0
    assert languages["Rust"]["named_tokens"] == 0
    assert languages["Go"]["rows"] > 0


def test_the_same_set_built_again_is_the_same(place: Path, composition: Path, built: Any) -> None:
    again = document(place, "sets", "build", str(composition), "--model", str(MODEL))
    assert again["id"] == built["id"]


def test_models_add_says_the_architecture(place: Path) -> None:
    summary = document(place, "models", "add", str(MODEL))
    figures = {key: summary[key] for key in ("layers", "moe_layers", "experts", "top_k")}
    assert figures == {"layers": 6, "moe_layers": 6, "experts": 32, "top_k": 4}
    assert summary["architecture"] == "MiniMaxM2ForCausalLM"
    # 6,089,472 weights and the 6 x 32 correction biases.
    assert summary["parameters"] == 6_089_472 + 6 * 32


def test_coverage_counts_every_routed_token(place: Path, built: Any) -> None:
    rows = str(place / "sets" / built["id"])
    found = document(
        place, "coverage", "--model", str(MODEL), "--set", rows, "--by", "spoken_language"
    )
    assert (found["tokens"], found["top_k"]) == (built["tokens"], 4)
    for layer in found["layers"]:
        assert sum(layer["experts"]) == found["tokens"] * found["top_k"]
    german = found["slices"]["de"]
    assert 0 < german["tokens"] < found["tokens"]


def test_no_librarys_bar_or_warning_is_on_stderr(
    quantizing: subprocess.CompletedProcess[str],
) -> None:
    assert "it/s" not in quantizing.stderr
    assert "WARNING" not in quantizing.stderr


def test_quantize_leaves_a_verified_checkpoint(place: Path, quantized: Any) -> None:
    assert {layer["layer"] for layer in quantized["layers"]} == set(range(6))
    assert all(15 < layer["sqnr_db"] < 40 for layer in quantized["layers"])
    assert Path(quantized["events"]).is_file()
    report = document(place, "verify", quantized["checkpoint"], "--source", str(MODEL))
    assert report == {"ok": True, "tensors": 639, "quantized": 576, "problems": []}


def test_rows_are_selected_and_kept_as_a_set(place: Path, composition: Path) -> None:
    chosen = document(
        place, "select", "--model", str(MODEL), "--pool", str(composition), "--budget", "1500"
    )
    assert 0 < chosen["tokens"] <= 1500
    assert set(chosen["worst1pct_tokens"]) == {"random", "selected"}
    again = document(place, "sets", "build", chosen["id"], "--model", str(MODEL))
    assert (again["rows"], again["tokens"]) == (chosen["rows"], chosen["tokens"])


def test_a_checkpoint_is_evaluated_and_compared(place: Path, built: Any, quantized: Any) -> None:
    """Held against the original itself, which loses nothing."""
    found, kept = [], []
    for checkpoint in (quantized["checkpoint"], str(MODEL)):
        kept.append(str(place / f"evaluation-{len(kept)}"))
        found.append(
            document(
                place, "evaluate", "--base", str(MODEL), "--checkpoint", checkpoint,
                "--set", str(place / "sets" / built["id"]), "--out", kept[-1],
            )
        )  # fmt: skip
    lost, nothing = found
    assert 0 < lost["kl_low"] <= lost["kl_mean"] <= lost["kl_high"]
    assert {one["share"] for one in nothing["router_same"]} == {1.0}
    (pair,) = document(place, "compare", *kept)["pairs"]
    assert (pair["problem"], pair["shared"]) == (None, built["rows"])
    assert pair["overall"]["difference"] == pytest.approx(-lost["kl_mean"], rel=0.01)
    assert pair["overall"]["high"] < 0


def test_verify_names_the_file_that_was_changed(place: Path, quantized: Any) -> None:
    copy = place / "tampered"
    shutil.copytree(quantized["checkpoint"], copy)
    shard = next(copy.glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-100] ^= 0xFF
    shard.write_bytes(content)
    done = calibrant(place, "verify", str(copy), "--source", str(MODEL), "--json")
    report = json.loads(done.stdout)
    assert done.returncode != 0
    assert not report["ok"]
    assert shard.name in {problem["tensor"] for problem in report["problems"]}


def refused(place: Path, *arguments: str) -> str:
    done = calibrant(place, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_a_model_that_is_not_there(place: Path) -> None:
    assert "/no/such/model" in refused(place, "models", "add", "/no/such/model")


def test_a_model_without_a_tokenizer(place: Path, composition: Path) -> None:
    bare = place / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(MODEL / name, bare / name)
    sentence = refused(place, "sets", "build", str(composition), "--model", str(bare))
    assert "tokenizer" in sentence


def test_a_manifest_builds_the_same_bytes_elsewhere(
    place: Path, built: Any, tmp_path: Path
) -> None:
    manifest = Path(built["manifest"])
    done = calibrant(tmp_path, "sets", "build", str(manifest), "--model", str(MODEL), "--json")
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert again["id"] == built["id"]
    for name in ("rows.parquet", "manifest.json"):
        here, there = manifest.with_name(name), Path(again["manifest"]).with_name(name)
        assert here.read_bytes() == there.read_bytes()
    document = json.loads(manifest.read_text())
    document["identity"]["tokenizer_sha256"] = "0" * 64
    other = tmp_path / "other.json"
    other.write_text(json.dumps(document))
    sentence = refused(place, "sets", "build", str(other), "--model", str(MODEL))
    assert "another tokenizer" in sentence


def test_an_empty_slice_is_named(place: Path) -> None:
    file = place / "empty.yaml"
    file.write_text(
        "{name: e, token_budget: 100, slices: "
        "[{name: Pony rows, weight: 1, facets: {programming_language: [Pony]}}]}"
    )
    sentence = refused(place, "sets", "build", str(file), "--model", str(MODEL))
    assert "Pony rows" in sentence


def test_a_budget_past_the_corpus_says_what_there_is(place: Path) -> None:
    file = place / "large.yaml"
    file.write_text("{name: l, token_budget: 900000000, slices: [{name: all, weight: 1}]}")
    sentence = refused(place, "sets", "build", str(file), "--model", str(MODEL))
    assert "900,000,000" in sentence


def test_a_group_size_that_divides_nothing(place: Path, built: Any) -> None:
    recipe = place / "recipe.yaml"
    recipe.write_text(
        "{name: odd, groups: [{name: experts, targets: ['.*experts.*_proj$'], group_size: 48}]}"
    )
    rows = str(place / "sets" / built["id"])
    out = str(place / "never")
    sentence = refused(
        place, "quantize", "--model", str(MODEL), "--set", rows, "--recipe", str(recipe),
        "--out", out,
    )  # fmt: skip
    assert "48" in sentence
    assert not Path(out).exists()


def test_a_full_disk_is_a_sentence_and_leaves_nothing_half_written(
    composition: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here: only root may")
    try:
        assert calibrant(small, "migrate").returncode == 0
        (small / "filler").write_bytes(b"x" * (shutil.disk_usage(small).free - 90_000))
        done = calibrant(small, "sets", "build", str(composition), "--model", str(MODEL))
        left = list(small.glob("sets/*"))
        for whole in small.rglob("*.parquet"):  # What was finished before is kept, and whole.
            pq.read_table(whole)
    finally:
        # Lazily: a table that was read just now may still hold its file.
        subprocess.run(["umount", "--lazy", str(small)], check=True)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert str(small) in done.stderr
    assert left == []

"""A run that was stopped goes on from its finished layers to the same bytes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

from app.errors import CheckpointRefused, DiskFull, OutOfMemory, ResumeRefused
from app.jobs.events import LayerQuantized, MappingSearched, Notice, RoutedTokens, StepStarted
from app.jobs.spec import JobSpec
from app.jobs.states import JobKind, Step
from app.recipes.schema import PRESETS, Recipe
from tests.engine import tiny_models
from tests.engine.conftest import DiskOf
from workers.engine import device, quantizing
from workers.engine.main_job import run
from workers.engine.models.provenance import described, package_versions
from workers.engine.quantization import resuming
from workers.engine.quantization.layer_store import Fingerprint, LayerRecord, LayerStore
from workers.engine.quantization.resuming import kept_bytes, partial_of
from workers.engine.run import Run

LAYERS = 3


class Stopped(Exception):
    """Stands for a kill: nothing of the run's memory survives it."""


@pytest.fixture(scope="module")
def three_layers(folder: Path) -> Path:
    config = tiny_models.minimax_m2(num_hidden_layers=LAYERS)
    return tiny_models.save(tiny_models.tiny_model(config, torch.bfloat16), folder / "three")


@pytest.fixture
def spec_for(tmp_path: Path, three_layers: Path, rows_file: Path) -> Callable[..., JobSpec]:
    def make(
        name: str, recipe: str = "experts-w4a16-g32", search: str = "exact", **changes: Any
    ) -> JobSpec:
        chosen = PRESETS[recipe].model_copy(update={"grid": 4, "search": search})
        return JobSpec(
            job_id=name,
            kind=JobKind.QUANTIZE,
            directory=tmp_path / name,
            sets_dir=tmp_path / "sets",
            model=three_layers,
            calibration=rows_file,
            recipe=chosen,
            threads=1,
            **changes,
        )

    return make


def run_until(spec: JobSpec, when: Callable[[Any], bool]) -> list[Any]:
    """Run a job and stop it at the first event that ``when`` is true of."""
    told: list[Any] = []

    def emit(event: Any) -> None:
        told.append(event)
        if when(event):
            raise Stopped

    with pytest.raises(Stopped):
        run(spec, emit)
    return told


def checkpoint_hashes(directory: Path) -> dict[str, str]:
    return {file.name: described(file).sha256 for file in sorted(directory.iterdir())}


def is_third_search_of(layer: int) -> Callable[[Any], bool]:
    seen = [0]

    def found(event: Any) -> bool:
        seen[0] += isinstance(event, MappingSearched) and event.layer == layer
        return seen[0] == 3

    return found


@pytest.mark.parametrize(
    ("recipe", "search"),
    [("experts-w4a16-g32", "exact"), ("experts-w4a16-g32-attn8", "fast"),
     ("experts-w4a16-g32", "stock")],
)  # fmt: skip
def test_stopped_twice_and_resumed_gives_the_same_bytes(
    spec_for: Callable[..., JobSpec], recipe: str, search: str
) -> None:
    whole = spec_for("whole", recipe, search)
    run(whole, lambda _: None)
    assert not whole.layers_directory.exists()
    first = spec_for("stopped", recipe, search)
    run_until(first, is_third_search_of(1))
    assert len(list(first.layers_directory.glob("layer-*.json"))) == 2  # embedding, layer 0
    again = first.model_copy(update={"resume": "required"})
    told = run_until(again, lambda event: isinstance(event, LayerQuantized) and event.layer == 1)
    assert [e.layer for e in told if isinstance(e, LayerQuantized)] == [0, 1]
    events: list[Any] = []
    result = run(again, events.append)
    assert checkpoint_hashes(first.directory / "checkpoint") == checkpoint_hashes(
        whole.directory / "checkpoint"
    )
    # The stream of the last run tells of every layer once, restored or not.
    assert [e.layer for e in events if isinstance(e, LayerQuantized)] == list(range(LAYERS))
    if search != "stock":
        assert [e.layer for e in events if isinstance(e, RoutedTokens)] == list(range(LAYERS))
    assert "1 finished layer is taken over" in " ".join(
        e.message for e in events if isinstance(e, Notice)
    )
    assert len(result.layers) == LAYERS
    assert not first.layers_directory.exists()


def test_a_full_disk_at_export_loses_no_layer(
    spec_for: Callable[..., JobSpec], disk_of: DiskOf
) -> None:
    whole = spec_for("whole")
    run(whole, lambda _: None)
    disk = disk_of("2m")
    spec = spec_for("stopped", checkpoint=disk / "checkpoint")
    others = disk / "others"

    def fill(event: Any) -> None:
        if isinstance(event, StepStarted) and event.step == Step.EXPORT:
            others.write_bytes(bytes(shutil.disk_usage(disk).free - 40_000))

    with pytest.raises(DiskFull, match="free some space"):
        run(spec, fill)
    assert [file.name for file in disk.iterdir()] == ["others"]
    others.unlink()
    events: list[Any] = []
    run(spec.model_copy(update={"resume": "required"}), events.append)
    said = " ".join(event.message for event in events if isinstance(event, Notice))
    assert f"{LAYERS} finished layers are taken over" in said
    assert checkpoint_hashes(disk / "checkpoint") == checkpoint_hashes(
        whole.directory / "checkpoint"
    )


def test_a_run_stopped_after_its_export_keeps_the_checkpoint(
    spec_for: Callable[..., JobSpec],
) -> None:
    spec = spec_for("stopped")
    run_until(spec, lambda event: isinstance(event, StepStarted) and event.step == Step.VERIFY)
    file = spec.directory / "checkpoint" / "model.safetensors"
    before = (file.stat().st_ino, checkpoint_hashes(file.parent))
    again = spec.model_copy(update={"resume": "required"})
    result = run(again, lambda _: None)
    assert (file.stat().st_ino, checkpoint_hashes(file.parent)) == before
    assert result.verification is not None
    assert result.verification.ok
    assert not spec.layers_directory.exists()


def test_what_is_not_its_own_checkpoint_is_not_taken_over(
    spec_for: Callable[..., JobSpec],
) -> None:
    spec = spec_for("stopped")
    run_until(spec, lambda event: isinstance(event, StepStarted) and event.step == Step.VERIFY)
    file = spec.directory / "checkpoint" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    events: list[Any] = []
    with pytest.raises(CheckpointRefused, match="is there already"):
        run(spec.model_copy(update={"resume": "required"}), events.append)
    assert not any(isinstance(event, LayerQuantized) for event in events)


def test_a_checkpoint_that_lost_a_file_is_not_taken_over(spec_for: Callable[..., JobSpec]) -> None:
    spec = spec_for("stopped")
    run_until(spec, lambda event: isinstance(event, StepStarted) and event.step == Step.VERIFY)
    (spec.directory / "checkpoint" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointRefused, match="is there already"):
        run(spec.model_copy(update={"resume": "required"}), lambda _: None)


def test_a_retry_goes_on_from_another_jobs_layers(spec_for: Callable[..., JobSpec]) -> None:
    whole = spec_for("whole")
    run(whole, lambda _: None)
    first = spec_for("first")
    first.directory.mkdir()
    (first.directory / "spec.json").write_text(first.model_dump_json(), encoding="utf-8")
    run_until(first, is_third_search_of(2))
    retry = spec_for("retry", resume="if_possible", layers_from=first.layers_directory)
    searched: list[Any] = []
    run(retry, searched.append)
    assert checkpoint_hashes(retry.directory / "checkpoint") == checkpoint_hashes(
        whole.directory / "checkpoint"
    )
    assert not first.layers_directory.exists()
    assert not retry.layers_directory.exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda spec, _: {"recipe": spec.recipe.model_copy(update={"grid": 5})}, "the recipe"),
        (lambda _, folder: {"calibration": _other_rows(folder)}, "the calibration set"),
        (lambda _, folder: {"held_out": _other_rows(folder)}, "the held-out part"),
        (lambda spec, folder: {"model": _other_model(spec.model, folder)}, "the source model"),
        (lambda _, __: {"threads": 2}, "the number of threads"),
        (lambda _, __: {"seed": 7}, "the seed"),
    ],
)
def test_another_input_is_refused_by_name_before_the_model_is_loaded(
    spec_for: Callable[..., JobSpec],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[JobSpec, Path], dict[str, Any]],
    named: str,
) -> None:
    spec = spec_for("stopped")
    run_until(spec, is_third_search_of(1))
    monkeypatch.setattr(Run, "loaded_model", lambda _: pytest.fail("the model was loaded"))
    changed = spec.model_copy(update={"resume": "required", **change(spec, tmp_path)})
    with pytest.raises(ResumeRefused, match=f"because {named} changed since"):
        run(changed, lambda _: None)
    torch.set_num_threads(1)
    assert list(spec.layers_directory.glob("layer-*.json"))


@pytest.mark.parametrize(
    ("part", "other", "named"),
    [
        (
            "package_versions",
            lambda: package_versions() | {"calibrant": "0.0.1"},
            "the version of calibrant",
        ),
        ("_device_kind", lambda _: "NVIDIA H100", "the kind of device"),
    ],
)
def test_other_versions_and_another_device_are_refused(
    spec_for: Callable[..., JobSpec],
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    other: Callable[..., Any],
    named: str,
) -> None:
    """There is one machine here: what it says of itself is changed."""
    spec = spec_for("stopped")
    run_until(spec, is_third_search_of(1))
    monkeypatch.setattr(resuming, part, other)
    with pytest.raises(ResumeRefused, match=f"because {named} changed since"):
        run(spec.model_copy(update={"resume": "required"}), lambda _: None)


def test_a_run_goes_on_with_the_threads_of_its_layers(
    spec_for: Callable[..., JobSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where none are asked for it takes the cores that are free, fewer just after a kill."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(device, "free_cores", lambda: 1)
    spec = spec_for("stopped").model_copy(update={"threads": None})
    run_until(spec, is_third_search_of(1))
    monkeypatch.setattr(device, "free_cores", lambda: 2)
    told = run_until(
        spec.model_copy(update={"resume": "required"}),
        lambda event: isinstance(event, LayerQuantized) and event.layer == 1,
    )
    assert [e.layer for e in told if isinstance(e, LayerQuantized)] == [0, 1]
    assert torch.get_num_threads() == 1


def test_our_own_version_is_among_the_packages() -> None:
    assert package_versions()["calibrant"] == version("calibrant")


def test_where_resuming_is_optional_another_recipe_starts_again(
    spec_for: Callable[..., JobSpec],
) -> None:
    spec = spec_for("stopped")
    run_until(spec, is_third_search_of(1))
    recipe = Recipe.model_validate({**spec.recipe.model_dump(), "grid": 5})  # type: ignore[union-attr]
    events: list[Any] = []
    run(spec.model_copy(update={"resume": "if_possible", "recipe": recipe}), events.append)
    warnings = [e.message for e in events if isinstance(e, Notice) and e.level == "warning"]
    assert any("the recipe changed since" in message for message in warnings)


def test_a_damaged_layer_is_refused(spec_for: Callable[..., JobSpec]) -> None:
    spec = spec_for("stopped")
    run_until(spec, is_third_search_of(1))
    file = sorted(spec.layers_directory.glob("layer-*.safetensors"))[-1]
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(ResumeRefused, match="is damaged"):
        run(spec.model_copy(update={"resume": "required"}), lambda _: None)


def test_too_little_device_memory_halves_the_batch_then_says_so(
    spec_for: Callable[..., JobSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No accelerator here: its allocator's error is raised in its place."""
    sizes: list[int] = []
    quantize = quantizing.quantize

    def small_memory(*args: Any, **kwargs: Any) -> Any:
        batches = args[3]
        sizes.append(max(batch.input_ids.shape[1] for batch in batches))
        if sizes[-1] > 200:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return quantize(*args, **kwargs)

    monkeypatch.setattr(quantizing, "quantize", small_memory)
    events: list[Any] = []
    run(spec_for("small"), events.append)
    assert sizes[0] > 200 >= sizes[-1]
    assert any("starting again with" in e.message for e in events if isinstance(e, Notice))
    monkeypatch.setattr(quantizing, "quantize", _never_fits)
    with pytest.raises(OutOfMemory, match="use shorter rows"):
        run(spec_for("none"), lambda _: None)


def test_smaller_batches_are_gone_on_with(
    spec_for: Callable[..., JobSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No accelerator here: its allocator's error is raised in its place."""
    quantize = quantizing.quantize

    def small_memory(*args: Any, **kwargs: Any) -> Any:
        if max(batch.input_ids.shape[1] for batch in args[3]) > 200:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return quantize(*args, **kwargs)

    monkeypatch.setattr(quantizing, "quantize", small_memory)
    whole, spec = spec_for("whole"), spec_for("stopped")
    run(whole, lambda _: None)
    run_until(spec, is_third_search_of(1))
    retried = spec_for("retried", resume="if_possible", layers_from=spec.layers_directory)
    told = run_until(retried, is_third_search_of(2))
    said = [event.message for event in told if isinstance(event, Notice)]
    assert any("1 finished layer is taken over" in message for message in said)
    run(retried.model_copy(update={"resume": "required"}), lambda _: None)
    assert checkpoint_hashes(retried.directory / "checkpoint") == checkpoint_hashes(
        whole.directory / "checkpoint"
    )


def test_records_are_taken_over_all_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier, later = (
        LayerStore(tmp_path / name, lambda _: pytest.fail("nothing is packed"))
        for name in ("earlier", "later")
    )
    current = Fingerprint(parts={"the recipe": "1"})
    earlier.open(current)
    for number in range(3):
        earlier.save(number, LayerRecord(scales={"a": torch.rand(2)}))
    link, links = os.link, iter(range(2))

    def killed_at_the_third(source: Path, place: Path) -> None:
        if next(links, None) is None:
            raise Stopped
        link(source, place)

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", killed_at_the_third)
        with pytest.raises(Stopped):
            later.adopt(tmp_path / "earlier")
    assert not list((tmp_path / "later").glob("*"))
    later.adopt(tmp_path / "earlier")
    assert later.open(current) == 3
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_a_killed_export_left_counts_as_room(spec_for: Callable[..., JobSpec]) -> None:
    spec = spec_for("stopped")
    destination = spec.directory / "checkpoint"
    partial = partial_of(destination)
    partial.mkdir(parents=True)
    (partial / ".shard-00000").write_bytes(bytes(1000))
    assert kept_bytes(spec, destination) == 1000
    assert kept_bytes(spec.model_copy(update={"resume": "required"}), destination) == 1000


def test_a_record_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    store = LayerStore(tmp_path / "layers", lambda _: pytest.fail("nothing is packed"))
    assert store.open(Fingerprint(parts={"the recipe": "1"})) == 0
    record = LayerRecord(scales={"b": torch.rand(3, dtype=torch.float64), "a": torch.rand(2)})
    store.save(0, record)
    (tmp_path / "layers" / "layer-0001.safetensors").write_bytes(b"half of a layer")
    again = LayerStore(tmp_path / "layers", lambda _: pytest.fail("nothing is packed"))
    assert again.open(Fingerprint(parts={"the recipe": "1"})) == 1
    loaded = again.load(0).scales
    assert list(loaded) == ["b", "a"]
    assert all(torch.equal(loaded[name], record.scales[name]) for name in loaded)


def _never_fits(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory.")


def _other_rows(folder: Path) -> Path:
    return tiny_models.write_jsonl(folder / "other.jsonl", rows=16, length=60, seed=5)


def _other_model(model: Path, folder: Path) -> Path:
    other = folder / "other-model"
    shutil.copytree(model, other)
    config = other / "config.json"
    config.write_text(config.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    return other

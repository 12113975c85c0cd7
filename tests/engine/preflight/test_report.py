"""What preflight says, held against what jobs then do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Glm4vMoeConfig

from app.errors import DiskFull, ModelRefused, OutOfMemory
from app.recipes.schema import ATTENTION, EXPERTS, LINEARS, PRESETS, Group, Recipe
from tests.engine import tiny_models
from tests.engine.conftest import Job
from tests.engine.made_checkpoints import quantized
from tests.engine.plan.test_mappings import mappings_of
from workers.engine.checkpoints.export import export
from workers.engine.device import Room
from workers.engine.formats.fp8_blocks import Fp8Blocks
from workers.engine.formats.safetensors_files import Shards
from workers.engine.models.loading import linearize, load_model
from workers.engine.models.meta_model import meta_model
from workers.engine.plan.plan import plan_of
from workers.engine.preflight import refusals, report
from workers.engine.preflight.lengths import Lengths
from workers.engine.preflight.refusals import refuse_too_large
from workers.engine.preflight.report import preflight
from workers.engine.preflight.resources import (
    LIBRARIES_BYTES,
    ram_of,
    rows_on_accelerator,
    sizes_of,
)
from workers.engine.preflight.work import work_of
from workers.engine.rows.batches import pack

ALL = [*tiny_models.MOE, *tiny_models.DENSE, *tiny_models.FUSED]


def recipe_for(*targets: str, **changes: object) -> Recipe:
    group = Group.model_validate({"name": "g", "targets": targets, "group_size": 16, **changes})
    return Recipe(name="r", groups=(group,))


@pytest.mark.parametrize("name", ALL)
def test_the_mappings_are_those_of_the_loaded_model(
    saved: Callable[[str], Path], name: str
) -> None:
    loaded = linearize(load_model(saved(name)))
    assert mappings_of(meta_model(saved(name)), LINEARS) == mappings_of(loaded, LINEARS)


@pytest.mark.parametrize("recipe", PRESETS.values(), ids=PRESETS)
def test_the_checkpoints_size_is_foretold(job: Job, recipe: Recipe) -> None:
    if recipe.name != "experts-w4a16-g32":
        recipe = recipe.model_copy(
            update={"groups": tuple(g.model_copy(update={"group_size": 16}) for g in recipe.groups)}
        )
    found = preflight(job.spec.model, recipe, Path(str(job.spec.calibration)))
    assert (found.ok, found.errors) == (True, [])
    if recipe.name == "experts-w4a16-g32":
        tensors = Shards(job.result.checkpoint).tensors.values()  # type: ignore[arg-type]
        assert found.checkpoint_bytes == sum(tensor.size_bytes for tensor in tensors)
        assert found.quantized_modules == 2 * 8 * 3 == found.modules_by_group["experts"]
        assert found.mappings == 2 * (1 + 8)
        assert found.mappings_by_kind["model.layers.*.post_attention_layernorm"] == 2
        assert found.unquantized["model.layers.*.self_attn.q_proj"] == 2
    assert found.router_safe
    assert found.tokens == job.result.set_tokens
    assert 0 < found.seconds < 60
    assert 0 < found.disk_bytes < found.ram_bytes


def in_blocks(directory: Path) -> Path:
    blocks = Fp8Blocks(rows=16, columns=16, dynamic_activations=True)
    return tiny_models.in_fp8_blocks(directory, blocks)


def with_a_stranger(directory: Path) -> Path:
    """A source with a tensor of a layer that no model loads."""
    file = directory / "model.safetensors"
    stranger = {"model.layers.2.mtp.weight": torch.zeros(64, 64)}
    save_file({**load_file(file), **stranger}, file, metadata={"format": "pt"})
    return directory


@pytest.mark.parametrize(
    ("changes", "dtype", "prepared"),
    [
        ({"tie_word_embeddings": True}, torch.bfloat16, None),
        ({}, torch.float32, None),
        ({}, torch.bfloat16, in_blocks),
        ({}, torch.bfloat16, with_a_stranger),
    ],
    ids=["tied embeddings", "float32", "FP8 blocks", "a tensor no model loads"],
)
def test_the_checkpoints_size_is_that_of_unusual_sources(
    tmp_path: Path,
    changes: dict[str, object],
    dtype: torch.dtype,
    prepared: Callable[[Path], Path] | None,
) -> None:
    model = tiny_models.tiny_model(tiny_models.minimax_m2(**changes), dtype)
    source = tiny_models.save(model, tmp_path / "source")
    source = prepared(source) if prepared else source
    recipe = recipe_for(EXPERTS, symmetric=False).model_copy(update={"grid": 3})
    found = preflight(source, recipe)
    linear, done = quantized(source, recipe)
    checkpoint = export(linear, done, source, "s", tmp_path / "checkpoint").directory
    written = sum(tensor.size_bytes for tensor in Shards(checkpoint).tensors.values())
    assert found.checkpoint_bytes == written
    packed = sum(t.nbytes for one in done.packed.values() for t in one.tensors.values())
    assert found.disk_bytes == written + packed


def test_patterns_are_counted_one_by_one(saved: Callable[[str], Path]) -> None:
    found = preflight(saved("mixtral"), recipe_for(EXPERTS, ATTENTION))
    counts = {each.pattern: each.matches for each in found.targets}
    assert counts == {EXPERTS: 2 * 4 * 3, ATTENTION: 2 * 4, r"^lm_head$": 1}


def test_everything_that_refuses_is_said_at_once(
    saved: Callable[[str], Path], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a"}\n{"neither": 1}\n', encoding="utf-8")
    found = preflight(saved("mixtral"), recipe_for(EXPERTS, group_size=48), rows)
    assert not found.ok
    assert ["does not divide" in found.errors[1], "line 2" in found.errors[0]] == [True, True]


def test_a_fused_source_is_refused(saved: Callable[[str], Path]) -> None:
    found = preflight(saved("gpt_oss"), recipe_for(EXPERTS))
    assert "keeps the experts of a layer in one tensor" in found.errors[0]
    assert preflight(saved("gpt_oss"), recipe_for(ATTENTION)).ok


def test_a_configuration_alone_is_enough(saved: Callable[[str], Path], tmp_path: Path) -> None:
    config = (saved("minimax_m2") / "config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    found = preflight(tmp_path, recipe_for(EXPERTS))
    assert found.ok
    assert any("were not checked" in warning for warning in found.warnings)
    assert any("are assumed" in warning for warning in found.warnings)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelRefused, match=r"no config\.json"):
        preflight(tmp_path / "empty", recipe_for(EXPERTS))


def test_a_quantized_source_is_refused(job: Job) -> None:
    found = preflight(job.result.checkpoint, recipe_for(EXPERTS))  # type: ignore[arg-type]
    assert any("is quantized already (compressed-tensors)" in error for error in found.errors)


def test_a_job_that_cannot_fit_is_refused_before_it_starts(
    saved: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, recipe = saved("mixtral"), recipe_for(EXPERTS)
    refuse_too_large(directory, recipe, tmp_path, kept=0)
    for module in (refusals, report):
        monkeypatch.setattr(module, "free_disk", lambda _: 1_000)
    with pytest.raises(DiskFull, match="free some space"):
        refuse_too_large(directory, recipe, tmp_path, kept=0)
    refuse_too_large(directory, recipe, tmp_path, kept=10**6)
    found = preflight(directory, recipe)
    assert not found.ok
    assert "free some space" in found.errors[0]
    config = tmp_path / "config.json"
    config.write_bytes((directory / "config.json").read_bytes())
    alone = preflight(tmp_path, recipe)  # of a model that is not here, nothing is refused
    assert alone.ok
    assert any("are free at" in warning for warning in alone.warnings)
    monkeypatch.undo()
    for module in (refusals, report):
        monkeypatch.setattr(module, "room", lambda: Room(1_000, None))
    with pytest.raises(OutOfMemory, match="more memory"):
        refuse_too_large(directory, recipe, tmp_path, kept=0)
    assert "more memory" in preflight(directory, recipe).errors[0]


def test_weights_that_memory_does_not_hold_rest_on_disk(
    saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, recipe = saved("mixtral"), recipe_for(EXPERTS)
    enough = preflight(directory, recipe)
    memory = SimpleNamespace(total=LIBRARIES_BYTES)
    monkeypatch.setattr("workers.engine.device.psutil.virtual_memory", lambda: memory)
    small = preflight(directory, recipe)
    assert small.ok
    weights = sum(one.nbytes for one in meta_model(directory).state_dict().values())
    assert small.disk_bytes - enough.disk_bytes == weights
    assert 0 < enough.ram_bytes - small.ram_bytes < weights
    assert any("they rest on the disk of" in warning for warning in small.warnings)
    assert not any("rest on the disk" in warning for warning in enough.warnings)


def test_work_grows_with_what_is_searched(saved: Callable[[str], Path]) -> None:
    model = meta_model(saved("minimax_m2"))

    def macs(**changes: object) -> float:
        recipe = recipe_for(EXPERTS).model_copy(update=changes)
        return work_of(model, plan_of(model, recipe), Lengths.assumed(10_000, 512)).macs

    exact, routed = macs(), macs(statistics="routed")
    fast = macs(statistics="routed", search="fast")
    assert exact > routed > fast > macs(smooth=False)
    assert macs(grid=40) > exact
    recipe = recipe_for(EXPERTS)
    plan = plan_of(model, recipe)
    once, twice, thrice = (
        work_of(model, plan, Lengths.assumed(tokens, 512)).macs
        for tokens in (50_000, 60_000, 70_000)
    )
    assert once > exact
    assert thrice - twice == pytest.approx(twice - once)
    assert twice > once
    four, two = (sizes_of(model, plan_of(model, recipe), n, 2) for n in (4, 2))
    assert (four.weights, four.packed) == (2 * two.weights, two.packed)


def test_long_rows_are_counted_by_their_squares(saved: Callable[[str], Path]) -> None:
    lengths = Lengths.of(pack(tiny_models.rows_of(700, 100, 200, 600, 300), 512))
    assert lengths == Lengths(
        tokens=1900, longest=700, pairs=700**2 + 300**2 + 600**2 + 300**2,
        masks=700**2 + 300**2,
    )  # fmt: skip
    model, recipe = meta_model(saved("minimax_m2")), recipe_for(EXPERTS)
    plan = plan_of(model, recipe)
    sizes = sizes_of(model, plan, computed=4, stored=2)
    short = Lengths.of(pack(tiny_models.rows_of(*[400] * 20), 512))
    long = Lengths.of(pack(tiny_models.rows_of(8_000), 512))
    assert short.tokens == long.tokens
    heads, softmax = 4, 3 * 4 * (8_000**2 - 400**2)
    masks = 4 * (8_000**2 - 400**2)
    for on_cpu, more in ((True, heads * softmax + masks), (False, masks)):
        found = ram_of(sizes, long, on_cpu) - ram_of(sizes, short, on_cpu)
        assert found == pytest.approx(more, rel=0.1)
    assert rows_on_accelerator(sizes, long) > rows_on_accelerator(sizes, short)
    assert work_of(model, plan, long).macs > work_of(model, plan, short).macs
    attention = plan_of(model, recipe_for(ATTENTION))
    whole = work_of(model, attention, long).macs - work_of(model, attention, short).macs
    part = work_of(model, plan, long).macs - work_of(model, plan, short).macs
    assert whole > 2 * part  # the norm's grid runs attention at every point


@pytest.mark.parametrize("slug", ["linears-w4a16-g128", "linears-w4a16-g128-asym"])
def test_experts_with_zero_points_come_with_a_warning(
    saved: Callable[[str], Path], slug: str
) -> None:
    groups = tuple(g.model_copy(update={"group_size": 32}) for g in PRESETS[slug].groups)
    recipe = PRESETS[slug].model_copy(update={"groups": groups})
    found = preflight(saved("mixtral"), recipe)
    assert any("zero points" in each for each in found.warnings) == slug.endswith("asym")
    assert any("cannot reload" in each for each in found.warnings) == slug.endswith("asym")


@pytest.mark.parametrize(
    ("name", "warned"), [("mixtral", True), ("gpt_oss", False), ("llama", False)]
)
def test_experts_left_alone_beside_packed_attention_come_with_a_warning(
    saved: Callable[[str], Path], name: str, warned: bool
) -> None:
    found = preflight(saved(name), recipe_for(ATTENTION))
    assert found.ok
    assert any("the experts are not packed" in each for each in found.warnings) is warned


def test_the_document_is_json(saved: Callable[[str], Path]) -> None:
    document = json.loads(preflight(saved("llama"), recipe_for(LINEARS)).model_dump_json())
    assert {
        "ok", "errors", "warnings", "targets", "quantized_modules", "mappings", "router_safe",
        "ram_bytes", "vram_bytes", "disk_bytes", "seconds",
    } <= document.keys()  # fmt: skip


def test_a_configuration_that_no_model_can_be_built_from_is_refused(tmp_path: Path) -> None:
    """Each layer's own number of experts, of which transformers' Mixtral knows nothing."""
    config = tiny_models.mixtral().to_dict()
    config["per_layer_config"] = {"1": {"num_local_experts": 8}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelRefused, match=r"cannot be built: .*num_local_experts"):
        meta_model(tmp_path)


def test_a_model_that_is_not_of_text_alone_is_refused(tmp_path: Path) -> None:
    Glm4vMoeConfig().save_pretrained(tmp_path)
    with pytest.raises(
        ModelRefused, match="of the kind glm4v_moe, of which transformers builds no"
    ):
        preflight(tmp_path, recipe_for(EXPERTS))

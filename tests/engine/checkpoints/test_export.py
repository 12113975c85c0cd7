"""The checkpoint: the source's names, its untouched bytes, and what serves."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, GraniteMoeSharedConfig

from app.errors import CheckpointRefused, DiskFull, ModelRefused, RecipeRefused
from app.recipes.schema import ATTENTION, EXPERTS, LINEARS, PRESETS
from tests.engine.conftest import DiskOf, Job
from tests.engine.made_checkpoints import IDS, quantized, recipe_for, tensors_of
from tests.engine.tiny_models import (
    DENSE,
    FUSED,
    MOE,
    WITHOUT_HEAD,
    mixtral,
    qwen2_moe,
    save,
    tiny_model,
)
from workers.engine.checkpoints.export import export
from workers.engine.checkpoints.manifest import MANIFEST, read_manifest
from workers.engine.checkpoints.verification import verify
from workers.engine.formats.safetensors_files import INDEX
from workers.engine.models.loading import load_checkpoint, load_model
from workers.engine.models.provenance import described
from workers.engine.preflight.refusals import refuse_unfit
from workers.engine.preflight.report import preflight


def test_names_are_the_sources_with_weight_replaced(job: Job) -> None:
    source, written = tensors_of(job.spec.model), tensors_of(job.result.checkpoint)
    expected = set()
    for name in source:
        if re.search(r"\.experts\.\d+\.w[123]\.weight$", name):
            base = name.removesuffix("weight")
            expected |= {f"{base}weight_{part}" for part in ("packed", "scale", "shape")}
        else:
            expected.add(name)
    assert written.keys() == expected
    assert "model.layers.0.block_sparse_moe.experts.0.w2.weight_packed" in written


def test_what_the_recipe_leaves_alone_is_the_sources(job: Job) -> None:
    source, written = tensors_of(job.spec.model), tensors_of(job.result.checkpoint)
    manifest = read_manifest(job.result.checkpoint)
    assert manifest is not None
    changed = {
        name for name in written.keys() & source.keys()
        if not torch.equal(written[name], source[name])
    }  # fmt: skip
    assert changed == manifest.smoothed.keys()
    kinds = {re.sub(r"\.\d+\.", ".N.", name) for name in changed}
    assert kinds == {
        "model.layers.N.post_attention_layernorm.weight",
        "model.layers.N.block_sparse_moe.gate.weight",
    }
    for name in written.keys() & source.keys():
        assert written[name].dtype == source[name].dtype
    assert {t.dtype for n, t in written.items() if n.endswith("_scale")} == {torch.bfloat16}


def test_the_correction_bias_keeps_float32(folder: Path, source: Path) -> None:
    directory = shutil.copytree(source, folder / "bias-in-float32")
    tensors = load_file(directory / "model.safetensors")
    bias = next(name for name in tensors if name.endswith("e_score_correction_bias"))
    tensors[bias] = tensors[bias].float() + 1e-4
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    model, done = quantized(directory, recipe_for(EXPERTS))
    written = tensors_of(export(model, done, directory, "s", folder / "with-bias").directory)
    assert written[bias].dtype == torch.float32
    assert torch.equal(written[bias], tensors[bias])


@pytest.mark.parametrize(
    ("name", "target", "symmetric"),
    [
        *((name, EXPERTS, True) for name in MOE),
        ("minimax_m2", LINEARS, True),
        ("qwen3_moe", LINEARS, True),
        *((name, LINEARS, False) for name in DENSE),
    ],
)
def test_transformers_reloads_it_with_the_same_logits(
    saved: Callable[[str], Path], tmp_path: Path, name: str, target: str, symmetric: bool
) -> None:
    directory = saved(name)
    model, done = quantized(directory, recipe_for(target, symmetric))
    checkpoint = export(model, done, directory, "s", tmp_path / "checkpoint").directory
    found = verify(checkpoint, directory)
    assert (found.ok, found.problems) == (True, [])
    assert found.quantized == len(done.packed)
    reloaded = load_model(checkpoint)
    with torch.no_grad():
        ours, theirs = model(IDS).logits, reloaded(IDS).logits
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)


def test_a_recipe_that_matches_everything_quantizes_linears_alone(
    saved: Callable[[str], Path], tmp_path: Path
) -> None:
    """llmcompressor and transformers hold a pattern against embeddings and norms too."""
    directory = saved("minimax_m2")
    model, done = quantized(directory, recipe_for(r".*"))
    assert len(done.packed) == 2 * (4 + 8 * 3)
    checkpoint = export(model, done, directory, "s", tmp_path / "checkpoint").directory
    found = verify(checkpoint, directory)
    assert (found.ok, found.problems) == (True, [])
    written, given = tensors_of(checkpoint), tensors_of(directory)
    embedding = "model.embed_tokens.weight"
    assert torch.equal(written[embedding], given[embedding])
    with torch.no_grad():
        ours, theirs = model(IDS).logits, load_model(checkpoint)(IDS).logits
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)


def test_a_tensor_no_model_loads_is_copied_and_verifies(source: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(source, tmp_path / "source")
    tensors = load_file(directory / "model.safetensors")
    tensors["model.layers.9.mtp.weight"] = torch.ones(3, 3)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    model, done = quantized(directory, recipe_for(EXPERTS))
    checkpoint = export(model, done, directory, "s", tmp_path / "checkpoint").directory
    assert torch.equal(tensors_of(checkpoint)["model.layers.9.mtp.weight"], torch.ones(3, 3))
    found = verify(checkpoint, directory)
    assert (found.ok, found.problems) == (True, [])


def test_experts_with_zero_points_are_written_and_verify(
    saved: Callable[[str], Path], tmp_path: Path
) -> None:
    directory = saved("mixtral")
    model, done = quantized(directory, recipe_for(EXPERTS, symmetric=False))
    checkpoint = export(model, done, directory, "s", tmp_path / "checkpoint").directory
    assert any(name.endswith(".w1.weight_zero_point") for name in tensors_of(checkpoint))
    found = verify(checkpoint, directory)
    assert found.ok
    cannot = "Loading it: transformers cannot, because the experts get zero points."
    assert found.unchecked == [cannot]


def test_the_config_names_modules_as_the_checkpoint_does(job: Job) -> None:
    config = json.loads((job.result.checkpoint / "config.json").read_text(encoding="utf-8"))
    source = json.loads((job.spec.model / "config.json").read_text(encoding="utf-8"))
    section = config.pop("quantization_config")
    assert config == source
    assert (section["quant_method"], section["format"]) == ("compressed-tensors", "pack-quantized")
    (group,) = section["config_groups"].values()
    targets = [target.removeprefix("re:") for target in group["targets"]]
    packed = [n.removesuffix(".weight_packed") for n in tensors_of(job.result.checkpoint)
              if n.endswith("_packed")]  # fmt: skip
    assert all(any(re.match(target, name) for target in targets) for name in packed)
    assert "model.layers.0.block_sparse_moe.gate" in section["ignore"]
    assert "model.layers.0.self_attn.q_proj" in section["ignore"]
    assert group["weights"]["group_size"] == 32


def test_targets_of_another_naming_get_the_checkpoints_beside_them(
    saved: Callable[[str], Path], tmp_path: Path
) -> None:
    directory = saved("mixtral")
    model, done = quantized(directory, recipe_for(LINEARS))
    checkpoint = export(model, done, directory, "s", tmp_path / "checkpoint").directory
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    (group,) = config["quantization_config"]["config_groups"].values()
    assert group["targets"] == [f"re:{LINEARS}", r"re:.*\.experts\.\d+\.(w1|w2|w3)$"]


def test_code_that_the_configuration_names_comes_along(
    saved: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers looks for it when told to trust remote code, known architecture or not."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "hf"))
    source = tmp_path / "with-code"
    shutil.copytree(saved("mixtral"), source)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoConfig": "configuration_own.OwnConfig"}
    (source / "config.json").write_text(json.dumps(config), encoding="utf-8")
    code = "from transformers import MixtralConfig\n\nclass OwnConfig(MixtralConfig):\n    pass\n"
    (source / "configuration_own.py").write_text(code, encoding="utf-8")
    model, result = quantized(source, recipe_for(EXPERTS))
    checkpoint = export(model, result, source, "set", tmp_path / "checkpoint").directory
    found = AutoConfig.from_pretrained(checkpoint, trust_remote_code=True)
    assert type(found).__name__ == "OwnConfig"
    assert verify(checkpoint, source).ok


def test_tokenizer_template_settings_and_licence_come_along(job: Job) -> None:
    source, checkpoint = job.spec.model, job.result.checkpoint
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json", "LICENSE"):
        assert (checkpoint / name).read_bytes() == (source / name).read_bytes()
    assert not list(checkpoint.glob("*.bin"))


def test_the_manifest_describes_every_file(job: Job) -> None:
    checkpoint = job.result.checkpoint
    manifest = read_manifest(checkpoint)
    assert manifest is not None
    listed = {file.name: file for file in manifest.files}
    assert listed.keys() == {file.name for file in checkpoint.iterdir()} - {MANIFEST}
    assert all(described(checkpoint / name) == file for name, file in listed.items())
    assert {file.name for file in job.result.files} == {f.name for f in checkpoint.iterdir()}
    assert manifest.recipe == PRESETS["experts-w4a16-g32"]
    assert len(manifest.dequantized) == 48


def test_shards_stay_shards(saved: Callable[[str], Path], tmp_path: Path) -> None:
    directory = tmp_path / "sharded"
    load_model(saved("minimax_m2")).save_pretrained(directory, max_shard_size="200KB")
    for extra in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(saved("minimax_m2") / extra, directory / extra)
    model, done = quantized(directory, recipe_for(EXPERTS))
    checkpoint = export(model, done, directory, "s", tmp_path / "checkpoint").directory
    index = json.loads((checkpoint / INDEX).read_text(encoding="utf-8"))
    files = {f.name for f in checkpoint.glob("*.safetensors")}
    assert len(files) > 1
    assert files == {f.name for f in directory.glob("*.safetensors")}
    for name, file in index["weight_map"].items():
        with safe_open(checkpoint / file, framework="pt") as shard:
            assert name in shard.keys()  # noqa: SIM118
    assert verify(checkpoint, directory).ok


def test_a_destination_in_use_is_left_as_it_is(job: Job, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    model, done = quantized(job.spec.model, recipe_for(EXPERTS))
    with pytest.raises(CheckpointRefused, match="not empty"):
        export(model, done, job.spec.model, "s", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("believes_there_is_room", [False, True])
def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    job: Job, disk_of: DiskOf, monkeypatch: pytest.MonkeyPatch, believes_there_is_room: bool
) -> None:
    small_disk = disk_of("180k")
    model, done = quantized(job.spec.model, recipe_for(EXPERTS))
    if believes_there_is_room:
        monkeypatch.setattr(
            "workers.engine.checkpoints.export._refuse_too_little_room", lambda *_: None
        )
    with pytest.raises(DiskFull, match="free some space"):
        export(model, done, job.spec.model, "s", small_disk / "checkpoint")
    assert list(small_disk.iterdir()) == []


def test_what_reads_a_norm_beside_fused_experts_is_refused_before_the_work(tmp_path: Path) -> None:
    """Smoothing that norm would change the experts, which have no tensors of their own."""
    sizes = {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 32}
    config = GraniteMoeSharedConfig(**WITHOUT_HEAD, **sizes, shared_intermediate_size=64)
    directory = save(tiny_model(config), tmp_path / "shared")
    recipe = recipe_for(r".*\.shared_mlp\.input_linear$")
    with pytest.raises(RecipeRefused, match=r"layernorm cannot be smoothed.*experts"):
        refuse_unfit(directory, recipe)
    assert "cannot be smoothed" in preflight(directory, recipe).errors[0]
    refuse_unfit(directory, recipe.model_copy(update={"smooth": False}))


@pytest.mark.parametrize("name", FUSED)
def test_fused_experts_are_refused_before_the_work_and_attention_is_not(
    saved: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    directory = saved(name)
    with pytest.raises(ModelRefused, match="leave the experts out of the recipe's targets"):
        refuse_unfit(directory, recipe_for(EXPERTS))
    refuse_unfit(directory, recipe_for(ATTENTION))
    model, done = quantized(directory, recipe_for(ATTENTION))
    checkpoint = export(model, done, directory, "s", tmp_path / "checkpoint").directory
    found = verify(checkpoint, directory)
    assert (found.ok, found.problems) == (True, [])
    with torch.no_grad():
        ours, theirs = model(IDS).logits, load_model(checkpoint)(IDS).logits
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({"num_local_experts": 1, "num_experts_per_tok": 1}, torch.float32),
        ({"num_hidden_layers": 1}, torch.float32),
        ({"tie_word_embeddings": True}, torch.float32),
        ({}, torch.bfloat16),
        ({}, torch.float16),
    ],
    ids=["one expert", "one layer", "tied embeddings", "bfloat16", "float16"],
)
def test_unusual_sources(tmp_path: Path, changes: dict[str, object], dtype: torch.dtype) -> None:
    directory = save(tiny_model(mixtral(**changes), dtype), tmp_path / "source")
    model, done = quantized(directory, recipe_for(EXPERTS))
    checkpoint = export(model, done, directory, "s", tmp_path / "checkpoint").directory
    found = verify(checkpoint, directory)
    assert (found.ok, found.problems) == (True, [])
    assert ("lm_head.weight" in tensors_of(checkpoint)) is not changes.get("tie_word_embeddings")
    with torch.no_grad():
        ours = model(IDS).logits
        theirs = load_checkpoint(checkpoint, torch.float32)(IDS).logits
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", MOE)
def test_engines_resolve_every_module_by_the_checkpoints_names(
    saved: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    """As vLLM and SGLang do it: a module is quantized when a target matches its name in the
    checkpoint and ``ignore`` does not."""
    directory = saved(name)
    model, done = quantized(directory, recipe_for(EXPERTS))
    checkpoint = export(model, done, directory, "s", tmp_path / "checkpoint").directory
    config = json.loads((checkpoint / "config.json").read_text())["quantization_config"]
    targets = [t for group in config["config_groups"].values() for t in group["targets"]]
    for tensor in tensors_of(checkpoint):
        module, _, leaf = tensor.rpartition(".")
        wanted = any(re.match(t.removeprefix("re:"), module) for t in targets)
        left_alone = any(
            module == each or (each.startswith("re:") and re.match(each[3:], module))
            for each in config["ignore"]
        )
        if leaf in {"weight_packed", "weight_scale", "weight_shape"}:
            assert (wanted, left_alone) == (True, False), module
        else:
            assert not wanted or left_alone, module


@pytest.mark.parametrize("limit", [10_000, 40_000])
def test_files_stay_under_the_limit(
    saved: Callable[[str], Path], tmp_path: Path, limit: int
) -> None:
    directory = saved("minimax_m2")
    model, done = quantized(directory, recipe_for(EXPERTS))
    parts = [
        export(model, done, directory, "s", tmp_path / name, shard_bytes=limit).directory
        for name in ("one", "other")
    ]
    files = sorted(parts[0].glob("*.safetensors"))
    assert len(files) > 2
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    largest = max(tensor.nbytes for tensor in tensors_of(parts[0]).values())
    for file in files:
        held = load_file(file)
        assert sum(t.nbytes for t in held.values()) <= limit or len(held) <= 3
    assert largest > 10_000  # one tensor alone is over the smaller limit, and is kept whole
    index = json.loads((parts[0] / INDEX).read_text(encoding="utf-8"))
    assert index["weight_map"].keys() == tensors_of(parts[0]).keys()
    assert verify(parts[0], directory).ok
    hashes = [[described(file).sha256 for file in sorted(part.iterdir())] for part in parts]
    assert hashes[0] == hashes[1]


def test_a_smoothed_bias_is_in_memory_as_it_is_written(tmp_path: Path) -> None:
    """Qwen2-MoE has a bias on v, which smoothing divides with v's outputs."""
    config = qwen2_moe()
    config.num_key_value_heads = config.num_attention_heads
    source = save(tiny_model(config, torch.bfloat16), tmp_path / "source")
    model, done = quantized(source, recipe_for(LINEARS).model_copy(update={"grid": 10}))
    written = tensors_of(export(model, done, source, "s", tmp_path / "checkpoint").directory)
    bias = "model.layers.1.self_attn.v_proj.bias"
    assert not torch.equal(written[bias], tensors_of(source)[bias])
    assert torch.equal(written[bias].float(), model.state_dict()[bias])

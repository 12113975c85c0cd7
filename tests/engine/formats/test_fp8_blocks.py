"""Sources in FP8 blocks: attention leaves as it came, experts leave packed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from app.errors import ModelRefused
from app.jobs.spec import JobSpec
from app.jobs.states import JobKind
from app.recipes.schema import EXPERTS, PRESETS, Group, Recipe
from tests.engine import tiny_models
from tests.engine.conftest import Job, run_job
from workers.engine.checkpoints.verification import verify
from workers.engine.device import compute_device
from workers.engine.formats.fp8_blocks import (
    FP8,
    LARGEST,
    Fp8Blocks,
    blocks_of,
    dequantize_blocks,
    quantize_blocks,
)
from workers.engine.models.loading import (
    limits_of,
    linearize,
    load_checkpoint,
    load_model,
    refuse_unusable_source,
)
from workers.engine.passes.forward import pack_for
from workers.engine.plan.plan import plan_of
from workers.engine.quantization.quantize import quantize
from workers.engine.quantizing import stored_dtypes
from workers.engine.rows.calibration_rows import read_rows

BLOCKS = Fp8Blocks(16, 32, dynamic_activations=True)
NORM = "model.layers.{}.post_attention_layernorm.weight"
IDS = torch.arange(40)[None] * 7 % 320

on_a_cpu = pytest.mark.skipif(
    compute_device().type != "cpu",
    reason="an accelerator searches in bfloat16, the model it is compared with here in float32",
)


@pytest.fixture(scope="module")
def fp8_source(folder: Path) -> Path:
    model = tiny_models.tiny_model(tiny_models.minimax_m2(), torch.bfloat16)
    saved = tiny_models.save(model, folder / "minimax-fp8")
    return tiny_models.in_fp8_blocks(saved, BLOCKS)


@pytest.fixture(scope="module")
def fp8_job(folder: Path, fp8_source: Path, rows_file: Path) -> Job:
    return run_job(
        JobSpec(
            job_id="fp8",
            kind=JobKind.QUANTIZE,
            directory=folder / "fp8-job",
            sets_dir=folder / "sets",
            model=fp8_source,
            calibration=rows_file,
            recipe=PRESETS["experts-w4a16-g32"].model_copy(update={"grid": 4}),
            threads=1,
        )
    )


def tensors_of(directory: Path) -> dict[str, torch.Tensor]:
    return {n: t for f in directory.glob("*.safetensors") for n, t in load_file(f).items()}


def without_rounded_activations(model: PreTrainedModel) -> PreTrainedModel:
    """Serving engines round activations to float8 beside such weights; a comparison of weights
    does not."""
    for module in model.modules():
        if getattr(module, "quantization_scheme", None) is not None:
            module.quantization_enabled = False
    return model


@settings(deadline=None, max_examples=50)
@given(
    rows=st.integers(1, 40), columns=st.integers(1, 70), seed=st.integers(0, 99),
    size=st.floats(1e-6, 1e4),
)  # fmt: skip
def test_blocks_there_and_back(rows: int, columns: int, seed: int, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator) * size
    rounded, scale = quantize_blocks(weight, BLOCKS)
    assert rounded.dtype == FP8
    assert scale.shape == (-(-rows // 16), -(-columns // 32))
    back = dequantize_blocks(rounded, scale, BLOCKS)
    assert float((back - weight).norm()) <= 0.07 * float(weight.norm())
    again, same = quantize_blocks(back, BLOCKS)
    torch.testing.assert_close(dequantize_blocks(again, same, BLOCKS), back, rtol=1e-6, atol=0)


def test_a_block_of_zeros_has_a_finite_factor() -> None:
    rounded, scale = quantize_blocks(torch.zeros(16, 32), BLOCKS)
    assert bool(scale.isfinite().all())
    assert not bool(rounded.float().any())
    largest, _ = quantize_blocks(torch.full((16, 32), 3.0), BLOCKS)
    assert float(largest.float().max()) == LARGEST


def test_the_source_is_dequantized_as_transformers_does(fp8_source: Path) -> None:
    stored = tensors_of(fp8_source)
    model = linearize(load_model(fp8_source, torch.float32))
    name = "model.layers.0.self_attn.q_proj.weight"
    expected = dequantize_blocks(stored[name], stored[f"{name}_scale_inv"], BLOCKS)
    assert torch.equal(model.get_parameter(name), expected)
    expert = "model.layers.1.block_sparse_moe.experts.3.w2.weight"
    expected = dequantize_blocks(stored[expert], stored[f"{expert}_scale_inv"], BLOCKS)
    down = model.get_parameter("model.layers.1.mlp.experts.3.down_proj.weight")
    assert torch.equal(down, expected)


def test_attention_leaves_as_it_came_and_experts_are_packed(fp8_source: Path, fp8_job: Job) -> None:
    source, written = tensors_of(fp8_source), tensors_of(fp8_job.result.checkpoint)  # type: ignore[arg-type]
    attention = [name for name in source if "_proj" in name]
    assert len(attention) == 2 * 4 * 2
    for name in attention:
        there = written[name.replace("weight_scale_inv", "weight_scale")]
        assert (there.dtype, there.shape) == (source[name].dtype, source[name].shape)
        assert torch.equal(there.view(torch.uint8), source[name].view(torch.uint8))
    experts = {name for name in written if ".experts." in name}
    assert {name.rpartition(".")[2] for name in experts} == {
        "weight_packed", "weight_scale", "weight_shape",
    }  # fmt: skip
    assert len(experts) == 2 * 8 * 3 * 3
    assert not any(name.endswith("scale_inv") for name in written)


def test_the_config_has_both_groups(fp8_job: Job) -> None:
    config = json.loads((fp8_job.result.checkpoint / "config.json").read_text())  # type: ignore[operator]
    section = config["quantization_config"]
    assert section["quant_method"] == "compressed-tensors"
    assert section["format"] == "mixed-precision"
    groups = section["config_groups"]
    assert {name: group["format"] for name, group in groups.items()} == {
        "experts": "pack-quantized",
        "fp8_blocks": "float-quantized",
    }
    blocks = groups["fp8_blocks"]
    assert blocks["weights"]["block_structure"] == [16, 32]
    assert blocks["input_activations"]["dynamic"] is True
    for name in ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.o_proj"):
        assert any(re.match(target[3:], name) for target in blocks["targets"])
        assert name not in section["ignore"]
    assert "lm_head" in section["ignore"]


def in_memory(source: Path, recipe: Recipe, rows: Path) -> PreTrainedModel:
    """The model as the engine has it when it is done."""
    model = linearize(load_model(source, torch.float32))
    plan = plan_of(model, recipe)
    tokenizer = tiny_models.tiny_tokenizer()
    batches = pack_for(model, read_rows(rows, tokenizer, limits_of(model)).rows)
    dtypes = stored_dtypes(model, plan, source)
    quantize(model, tokenizer, plan, batches, dtypes, lambda _: None, blocks=BLOCKS)
    return model


@on_a_cpu
def test_it_verifies_and_reloads_with_the_same_logits(
    fp8_source: Path, fp8_job: Job, rows_file: Path
) -> None:
    checkpoint, recipe = fp8_job.result.checkpoint, fp8_job.spec.recipe
    assert checkpoint is not None
    assert recipe is not None
    found = verify(checkpoint, fp8_source)
    assert (found.ok, found.problems) == (True, [])
    assert found.quantized == 2 * 8 * 3
    reloaded = without_rounded_activations(load_checkpoint(checkpoint, torch.float32))
    with torch.no_grad():
        ours = in_memory(fp8_source, recipe, rows_file)(IDS).logits
        theirs = reloaded(IDS).logits
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)


def test_a_smoothed_reader_in_fp8_blocks_is_rounded_anew(tmp_path: Path) -> None:
    """The shared experts of DeepSeek-V3 read the smoothed norm and stay in FP8."""
    model = tiny_models.tiny_model(tiny_models.deepseek_v3(), torch.bfloat16)
    with torch.no_grad():  # channels far apart, so that smoothing has something to find
        model.get_parameter(NORM.format(1))[:8] *= 30
    source = tiny_models.in_fp8_blocks(tiny_models.save(model, tmp_path / "source"), BLOCKS)
    rows = tiny_models.write_jsonl(tmp_path / "rows.jsonl", rows=12, length=60)
    job = run_job(
        JobSpec(
            job_id="ds",
            kind=JobKind.QUANTIZE,
            directory=tmp_path / "job",
            sets_dir=tmp_path / "sets",
            model=source,
            calibration=rows,
            held_out=rows,
            recipe=Recipe(
                name="r", grid=20, groups=(Group(name="e", targets=(EXPERTS,), group_size=16),)
            ),
            threads=1,
        )
    )
    assert job.result.verification is not None
    assert job.result.verification.ok
    assert job.result.evaluation is not None
    assert 0 < job.result.evaluation.kl_mean < 0.3
    written, given = tensors_of(job.result.checkpoint), tensors_of(source)  # type: ignore[arg-type]
    assert not torch.equal(written[NORM.format(1)], given[NORM.format(1)])
    shared = "model.layers.1.mlp.shared_experts.gate_proj.weight"
    assert written[shared].dtype == FP8
    assert not torch.equal(written[f"{shared}_scale"], given[f"{shared}_scale_inv"])
    attention = "model.layers.1.self_attn.o_proj.weight"
    assert torch.equal(written[attention].view(torch.uint8), given[attention].view(torch.uint8))


def test_a_tampered_block_is_found(fp8_source: Path, fp8_job: Job, tmp_path: Path) -> None:
    copy = shutil.copytree(fp8_job.result.checkpoint, tmp_path / "copy")  # type: ignore[arg-type]
    file = next(copy.glob("*.safetensors"))
    tensors = load_file(file)
    name = "model.layers.0.self_attn.v_proj.weight_scale"
    tensors[name][0, 0] *= 2
    save_file(tensors, file, metadata={"format": "pt"})
    found = verify(copy, fp8_source, reload=False)
    assert any("v_proj" in problem.tensor for problem in found.problems)


@on_a_cpu
def test_groups_of_float8_are_written_and_verify(folder: Path, tmp_path: Path) -> None:
    """The seed's mixed recipe: attention in float8 by groups, experts in 4 bits."""
    source = folder / "minimax-m2"
    if not source.exists():
        tiny_models.save(tiny_models.tiny_model(tiny_models.minimax_m2(), torch.bfloat16), source)
    recipe = Recipe(
        name="mixed",
        grid=4,
        groups=(
            Group(name="attention", targets=(r".*self_attn\..*_proj$",), bits=8, type="float"),
            Group(name="experts", targets=(EXPERTS,)),
        ),
    )
    rows = tiny_models.write_jsonl(tmp_path / "rows.jsonl", rows=12, length=60)
    job = run_job(
        JobSpec(
            job_id="mixed",
            kind=JobKind.QUANTIZE,
            directory=tmp_path / "job",
            sets_dir=tmp_path / "sets",
            model=source,
            calibration=rows,
            recipe=recipe,
            threads=1,
        )
    )
    checkpoint = job.result.checkpoint
    assert checkpoint is not None
    assert job.result.verification is not None
    assert job.result.verification.quantized == 2 * (8 * 3 + 4)
    written = tensors_of(checkpoint)
    query = "model.layers.0.self_attn.q_proj.weight"
    assert (written[query].dtype, written[f"{query}_scale"].shape) == (FP8, (64, 2))
    with torch.no_grad():
        ours = in_memory(source, recipe, rows)(IDS).logits
        theirs = load_checkpoint(checkpoint, torch.float32)(IDS).logits
    torch.testing.assert_close(theirs, ours, atol=1e-3, rtol=1e-3)


def test_other_quantized_sources_are_refused(fp8_source: Path, tmp_path: Path) -> None:
    refuse_unusable_source(fp8_source)
    config = json.loads((fp8_source / "config.json").read_text(encoding="utf-8"))
    assert blocks_of(config) == BLOCKS
    for method in ("gptq", "awq", "fp8"):
        config["quantization_config"] = {"quant_method": method}
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        with pytest.raises(ModelRefused, match=rf"quantized already \({method}\)"):
            refuse_unusable_source(tmp_path)

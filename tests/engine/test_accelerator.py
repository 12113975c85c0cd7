"""What only an accelerator can show; on a machine without one these tests are left out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from app.errors import OutOfMemory
from app.jobs.spec import JobSpec
from app.jobs.states import JobKind
from app.recipes.schema import PRESETS, Recipe
from tests.engine.conftest import Job, run_job
from tests.engine.tiny_models import MOE, minimax_m2, rows_of, save, tiny_model
from workers.engine.awq.experts_forward import (
    Dispatch,
    has_grouped_products,
    members_of,
    run_experts,
    run_grouped,
)
from workers.engine.awq.gram import InputStatistics, search_scales
from workers.engine.awq.smoothing import args_of, weight_of
from workers.engine.awq.trial import Trial
from workers.engine.device import Room, compute_device
from workers.engine.models.architecture import moe_layers
from workers.engine.models.loading import linearize
from workers.engine.passes.forward import last_hidden
from workers.engine.preflight import resources
from workers.engine.rows.batches import pack

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs an accelerator with CUDA"
)
RECIPE = PRESETS["experts-w4a16-g32"]


@contextmanager
def no_round_trips() -> Iterator[None]:
    """Every wait of the host for the device raises."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def job_on(tmp_path: Path, source: Path, rows: Path, held_out: Path, recipe: Recipe) -> Job:
    return run_job(
        JobSpec(
            job_id="there", kind=JobKind.QUANTIZE, directory=tmp_path / "job",
            sets_dir=tmp_path / "sets", model=source, calibration=rows, held_out=held_out,
            recipe=recipe, threads=1,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny MiniMax-M2 in bfloat16 whose experts grouped products take."""
    model = tiny_model(minimax_m2(intermediate_size=64), torch.bfloat16)
    return save(model, tmp_path_factory.mktemp("aligned") / "source")


@pytest.mark.parametrize("statistics", ["all", "routed"])
@pytest.mark.parametrize("search", ["exact", "fast"])
def test_the_norms_grid_asks_the_host_nothing(
    aligned: Path, rows_file: Path, held_out_file: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, search: str, statistics: str,
) -> None:  # fmt: skip
    running, grids = Trial.running, []

    @contextmanager
    def watched(self: Trial) -> Iterator[None]:
        grids.append(self)
        with running(self), no_round_trips():
            yield

    monkeypatch.setattr(Trial, "running", watched)
    recipe = RECIPE.model_copy(update={"search": search, "statistics": statistics})
    done = job_on(tmp_path, aligned, rows_file, held_out_file, recipe)
    assert len(grids) == 2
    assert done.result.verification is not None
    assert done.result.verification.ok


def test_the_gram_search_asks_the_host_nothing() -> None:
    device = compute_device()
    layer = moe_layers(model := linearize(tiny_model(MOE["minimax_m2"]())))[0]
    down = model.get_submodule(layer.experts_name)[0].down_proj.to(device)
    statistics = InputStatistics.empty(down.in_features, device)
    statistics.add(torch.randn(200, down.in_features, device=device))
    weights = weight_of(down)[None]
    means = weights.abs().mean(dim=1).double()
    args = RECIPE.groups[0]
    from workers.engine.plan.targets import scheme_of

    down.quantization_scheme = scheme_of(args)
    torch.cuda.synchronize()
    with no_round_trips():
        found = search_scales(
            weights, means, [statistics], args_of(down), [(0.0, False), (0.5, True)]
        )
    assert bool(found.best_error.isfinite().all())


def test_grouped_products_are_the_experts_one_by_one() -> None:
    device = compute_device()
    model = linearize(tiny_model(minimax_m2(intermediate_size=64), torch.bfloat16)).to(device)
    experts = model.get_submodule(moe_layers(model)[0].experts_name)
    gate_up = torch.stack(
        [torch.cat([weight_of(e.gate_proj), weight_of(e.up_proj)]) for e in members_of(experts)]
    )
    down = torch.stack([weight_of(each.down_proj) for each in members_of(experts)])
    assert has_grouped_products(gate_up)
    generator = torch.Generator(device).manual_seed(0)
    hidden = torch.randn(300, 64, device=device, generator=generator).bfloat16()
    scores = torch.randn(300, experts.num_experts, device=device, generator=generator)
    scores[:, 3] = -10  # an expert without a token
    weights, indices = scores.softmax(-1).topk(2)
    one_by_one = run_experts(
        experts, hidden, weights, Dispatch.of(indices, experts.num_experts), False
    )
    grouped = run_grouped(experts, hidden, indices, weights, gate_up, down)
    torch.testing.assert_close(grouped, one_by_one, atol=2e-2, rtol=2e-2)
    again = run_grouped(experts, hidden, indices, weights, gate_up, down)
    assert torch.equal(grouped, again)


def test_a_model_too_large_for_it_rests_in_ram_and_gives_the_same_checkpoint(
    aligned: Path, rows_file: Path, held_out_file: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    there = job_on(tmp_path / "there", aligned, rows_file, held_out_file, RECIPE)
    small = resources.vram_of(0, 200_000)[1]
    monkeypatch.setattr(resources, "room", lambda: Room(1 << 40, small))
    in_ram = job_on(tmp_path / "ram", aligned, rows_file, held_out_file, RECIPE)
    assert in_ram.result.files == there.result.files
    assert in_ram.result.experts_reached == there.result.experts_reached
    one, other = there.result.evaluation, in_ram.result.evaluation
    assert one is not None
    assert other is not None
    assert other.kl_mean == pytest.approx(one.kl_mean, rel=0.1)


def test_a_model_in_ram_is_read_layer_by_layer() -> None:
    model = tiny_model(MOE["minimax_m2"]())
    batches = pack(rows_of(7, 11, 5), 20)
    in_ram = [each.cpu() for each in last_hidden(model, batches)]
    assert model.device.type == "cpu"
    there = [each.cpu() for each in last_hidden(model.to(compute_device()), batches)]
    for one, other in zip(in_ram, there, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_memory_that_is_full_is_a_sentence(
    aligned: Path, rows_file: Path, held_out_file: Path, tmp_path: Path
) -> None:
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-5)
    try:
        with pytest.raises(OutOfMemory, match="accelerator's memory is"):
            job_on(tmp_path, aligned, rows_file, held_out_file, RECIPE)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)

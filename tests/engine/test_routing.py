"""Routing counts, checked against the router asked by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from app.coverage.profile import Profile
from tests.engine.tiny_models import DENSE, MOE, rows_of, tiny_model
from workers.engine.architecture import moe_layers
from workers.engine.batches import pack
from workers.engine.calibration_rows import CalibrationRow, CalibrationRows
from workers.engine.forward import hidden_states
from workers.engine.loading import linearize
from workers.engine.routing import count_routing, write_coverage

LENGTHS = (9, 4, 13, 1)


@torch.no_grad()
def counts_by_hand(model: torch.nn.Module, row: CalibrationRow) -> list[list[int]]:
    """For one row alone: what the router returns, counted in plain Python."""
    chosen: list[list[list[int]]] = []
    layers = moe_layers(model)
    hooks = [
        model.get_submodule(layer.router_name).register_forward_hook(
            lambda _, __, output: chosen.append(output[2].tolist())
        )
        for layer in layers
    ]
    ids = torch.from_numpy(row.input_ids.astype(np.int64))[None]
    hidden_states(model, ids, torch.arange(ids.shape[1])[None])
    for hook in hooks:
        hook.remove()
    counts = [[0] * layers[0].experts for _ in layers]
    for layer, tokens in enumerate(chosen):
        for token in tokens:
            for expert in token:
                counts[layer][expert] += 1
    return counts


@pytest.mark.parametrize("name", MOE)
@pytest.mark.parametrize("linear", [False, True])
def test_counts_are_those_of_the_router_row_by_row(name: str, linear: bool) -> None:
    model = tiny_model(MOE[name]())
    if linear:
        linearize(model)
    rows = rows_of(*LENGTHS)
    routing = count_routing(model, pack(rows, 16), len(rows))
    assert routing.counts.tolist() == [counts_by_hand(model, row) for row in rows]
    assert routing.counts.sum(dim=(1, 2)).tolist() == [
        length * routing.top_k * len(routing.layers) for length in LENGTHS
    ]


def test_mass_is_the_sum_of_the_routers_weights() -> None:
    model = tiny_model(MOE["minimax_m2"]())  # its top-k weights of a token sum to 1
    rows = rows_of(*LENGTHS)
    routing = count_routing(model, pack(rows, 16), len(rows))
    expected = torch.tensor(LENGTHS)[:, None].expand(-1, 2).float()
    torch.testing.assert_close(routing.mass.sum(dim=2), expected)
    assert bool(((routing.mass > 0) == (routing.counts > 0)).all())


def test_uncovered_experts_are_named() -> None:
    model = tiny_model(MOE["mixtral"]())
    rows = rows_of(1)
    routing = count_routing(model, pack(rows, 16), 1)
    assert routing.experts_total == 8
    assert routing.experts_reached == 4
    assert len(routing.uncovered) == 4
    missed = routing.uncovered[0]
    assert routing.counts[0, missed["layer"], missed["expert"]] == 0


def test_the_written_file_is_what_the_pages_read(tmp_path: Path) -> None:
    model = tiny_model(MOE["qwen3_moe"]())
    rows = [
        CalibrationRow(row.row_id, row.input_ids, {"domain": domain} if domain else {})
        for row, domain in zip(rows_of(*LENGTHS), ("code", "law", "", "code"), strict=True)
    ]
    routing = count_routing(model, pack(rows, 16), len(rows))
    write_coverage(tmp_path / "coverage.npz", routing, CalibrationRows("id", tuple(rows)))
    profile = Profile.load(tmp_path / "coverage.npz")
    assert profile.layers.tolist() == [1]
    assert profile.tokens.tolist() == list(LENGTHS)
    assert np.array_equal(profile.counts, routing.counts.numpy())
    assert profile.values("domain") == ["code", "law"]
    assert [file.name for file in tmp_path.iterdir()] == ["coverage.npz"]


def test_a_dense_model_has_no_experts_to_count(tmp_path: Path) -> None:
    rows = rows_of(*LENGTHS)
    routing = count_routing(tiny_model(DENSE["llama"]()), pack(rows, 16), len(rows))
    write_coverage(tmp_path / "coverage.npz", routing, CalibrationRows("id", tuple(rows)))
    assert Profile.load(tmp_path / "coverage.npz").experts == 0
    assert (routing.experts_total, routing.uncovered) == (0, [])

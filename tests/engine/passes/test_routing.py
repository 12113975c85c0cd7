"""Routing counts, checked against the router asked by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from app.coverage.profile import Profile
from app.errors import NotFinite
from tests.engine.tiny_models import DENSE, MOE, rows_of, tiny_model
from workers.engine.models.architecture import moe_layers
from workers.engine.models.loading import linearize
from workers.engine.passes import routing as routing_module
from workers.engine.passes.forward import hidden_states, layer_by_layer
from workers.engine.passes.observation import observe
from workers.engine.passes.routing import RoutingTally, count_routing, write_coverage
from workers.engine.rows.batches import pack
from workers.engine.rows.calibration_rows import CalibrationRow, CalibrationRows

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


# Each token's embedding is 2 × one axis and 1 × another; the router reads the axes.
AXES = [(0, 1), (0, 2), (3, 0), (1, 2)]


def made_to_be_counted(name: str) -> torch.nn.Module:
    """A model whose first mixture sends token t to the two experts of AXES[t]: attention adds
    nothing, so the router sees the normed embedding, and its rows are the axes."""
    model = tiny_model(MOE[name]())
    layer = moe_layers(model)[0]
    decoder = model.get_submodule(layer.layer_name)
    with torch.no_grad():
        embedding = model.get_input_embeddings().weight
        embedding.zero_()
        for token, (first, second) in enumerate(AXES):
            embedding[token, first], embedding[token, second] = 2, 1
        decoder.self_attn.o_proj.weight.zero_()
        decoder.post_attention_layernorm.weight.fill_(1)
        router = model.get_submodule(layer.router_name)
        router.weight.zero_()
        for expert in range(layer.experts):
            router.weight[expert, expert] = 1
        for buffer, values in model.named_buffers():
            if "correction_bias" in buffer:
                values.zero_()
    return model


@pytest.mark.parametrize("name", ["minimax_m2", "mixtral", "olmoe"])
@pytest.mark.parametrize("linear", [False, True])
def test_counts_worked_out_by_hand(name: str, linear: bool) -> None:
    model = made_to_be_counted(name)
    experts = moe_layers(model)[0].experts
    if linear:
        linearize(model)
    rows = [
        CalibrationRow("a", np.array([0, 0, 3], dtype=np.int32), {}),
        CalibrationRow("b", np.array([1, 2], dtype=np.int32), {}),
    ]
    routing = count_routing(model, pack(rows, 16), 2)
    by_hand = [[2, 3, 1, 0], [2, 0, 1, 1]]
    assert routing.counts[:, 0].tolist() == [row + [0] * (experts - 4) for row in by_hand]
    both = [[4, 2, 1, 1], [2, 3, 1, 0], [1, 1, 2, 0], [1, 0, 0, 1]]
    assert routing.together[0, :4, :4].tolist() == both


def test_layer_by_layer_counts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(MOE["minimax_m2"]())
    model.config._attn_implementation = "eager"
    rows = rows_of(*LENGTHS)
    whole = count_routing(model, pack(rows, 16), len(rows))
    monkeypatch.setattr(routing_module, "last_hidden", layer_by_layer)
    layers = count_routing(model, pack(rows, 16), len(rows))
    assert torch.equal(whole.counts, layers.counts)
    assert torch.equal(whole.together, layers.together)
    torch.testing.assert_close(whole.mass, layers.mass)
    assert whole.activations is not None
    torch.testing.assert_close(whole.activations, layers.activations)


@torch.no_grad()
def test_a_rows_place_is_the_mean_of_its_last_hidden_states() -> None:
    model = tiny_model(MOE["qwen3_moe"]())
    rows = rows_of(*LENGTHS)
    routing = count_routing(model, pack(rows, 16), len(rows))
    assert routing.activations is not None
    for row, found in zip(rows, routing.activations, strict=True):
        ids = torch.from_numpy(row.input_ids.astype(np.int64))[None]
        alone = hidden_states(model, ids, torch.arange(ids.shape[1])[None])[0].mean(dim=0)
        torch.testing.assert_close(found, alone, atol=1e-4, rtol=1e-4)


def test_an_observation_counts_too() -> None:
    model = tiny_model(MOE["glm4_moe"]())
    rows = rows_of(*LENGTHS)
    tally = RoutingTally(moe_layers(model), len(rows))
    observe(model, pack(rows, 16), tally=tally)
    expected = count_routing(model, pack(rows, 16), len(rows))
    assert torch.equal(tally.result().counts, expected.counts)
    assert torch.equal(tally.result().mass, expected.mass)


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
    write_coverage(tmp_path / "coverage.npz", routing, CalibrationRows("id", tuple(rows)), "m")
    profile = Profile.load(tmp_path / "coverage.npz")
    assert profile.layers.tolist() == [1]
    assert profile.tokens.tolist() == list(LENGTHS)
    assert np.array_equal(profile.counts, routing.counts.numpy())
    assert profile.counts.dtype == np.uint16
    assert profile.model == "m"
    assert profile.activations == pytest.approx(routing.activations.numpy(), abs=0.01)
    assert profile.values("domain") == ["code", "law"]
    assert [file.name for file in tmp_path.iterdir()] == ["coverage.npz"]


def test_a_dense_model_has_no_experts_to_count(tmp_path: Path) -> None:
    rows = rows_of(*LENGTHS)
    routing = count_routing(tiny_model(DENSE["llama"]()), pack(rows, 16), len(rows))
    write_coverage(tmp_path / "coverage.npz", routing, CalibrationRows("id", tuple(rows)), "m")
    assert Profile.load(tmp_path / "coverage.npz").experts == 0
    assert (routing.experts_total, routing.uncovered) == (0, [])


def test_rows_a_model_has_no_numbers_for_are_named() -> None:
    model = tiny_model(MOE["mixtral"]())
    rows = rows_of(*LENGTHS)
    token = int(rows[2].input_ids[0])
    assert all(token not in row.input_ids for row in rows[:2])
    with torch.no_grad():
        model.get_submodule("model.embed_tokens").weight[token] = torch.inf
    with pytest.raises(
        NotFinite, match=r"NaN or infinity on \d of the set's 4 rows, first on row 3"
    ):
        count_routing(model, pack(rows, 16), len(rows))

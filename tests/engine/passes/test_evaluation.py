"""Divergence and perplexity, against figures worked out directly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from app.errors import CompositionRefused, NotFinite
from app.jobs.spec import Evaluation
from app.quality.divergence import evaluation_of
from app.quality.evaluated_rows import EvaluatedRows
from tests.engine.conftest import Job
from tests.engine.tiny_models import MOE, granite_moe, mixtral, rows_of, tiny_model
from workers.engine.passes import forward, observation
from workers.engine.passes.evaluation import compare, measure
from workers.engine.passes.forward import pack_for
from workers.engine.passes.observation import Observed, observe
from workers.engine.rows.calibration_rows import CalibrationRow, CalibrationRows

ROWS = CalibrationRows(
    "id",
    tuple(
        CalibrationRow(row.row_id, row.input_ids, {"domain": domain})
        for row, domain in zip(rows_of(9, 30, 1, 14), ("code", "code", "code", "law"), strict=True)
    ),
)


def compared(base: PreTrainedModel, other: PreTrainedModel, rows: CalibrationRows) -> Evaluation:
    batches = pack_for(base, rows.rows)
    return compare(observe(base, batches), observe(other, batches), rows)


def test_a_model_is_itself() -> None:
    model = tiny_model(MOE["minimax_m2"]())
    found = compared(model, model, ROWS)
    assert (found.kl_mean, found.kl_low, found.kl_high) == (0, 0, 0)
    assert found.perplexity == found.perplexity_base
    assert [layer.share for layer in found.router_same] == [1, 1]
    assert (found.rows, found.tokens) == (3, 8 + 29 + 13)


@pytest.mark.parametrize(
    "config", [mixtral(), granite_moe(logits_scaling=6.0)], ids=["mixtral", "scaled logits"]
)
@torch.no_grad()
def test_figures_are_those_of_every_row_alone(config: PreTrainedConfig) -> None:
    base, other = (tiny_model(config, seed=seed) for seed in (0, 1))
    kl, loss, tokens = 0.0, 0.0, 0
    for row in ROWS.rows:
        ids = torch.from_numpy(row.input_ids.astype(np.int64))[None]
        p, q = (model(ids).logits[0, :-1].double().log_softmax(-1) for model in (base, other))
        kl += float((p.exp() * (p - q)).sum())
        loss -= float(q.gather(1, ids[0, 1:, None]).sum())
        tokens += ids.shape[1] - 1
    found = compared(base, other, ROWS)
    assert found.kl_mean == pytest.approx(kl / tokens, rel=1e-4)
    assert found.perplexity == pytest.approx(math.exp(loss / tokens), rel=1e-4)
    assert found.kl_low < found.kl_mean < found.kl_high
    assert all(0 <= layer.share < 1 for layer in found.router_same)


@torch.no_grad()
def test_logits_of_half_precision_are_not_rounded_to_it() -> None:
    base, other = (tiny_model(mixtral(), torch.bfloat16, seed) for seed in (0, 1))
    batches = pack_for(base, ROWS.rows)
    first, second = observe(base, batches), observe(other, batches)
    found = first.head(first.hidden[0])
    exact = first.hidden[0].float() @ base.lm_head.weight.float().T
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-5)
    assert (found.bfloat16().float() != found).any()
    assert compare(first, second, ROWS).kl_mean > 0


def test_slices_need_two_rows_that_can_be_predicted() -> None:
    base, other = (tiny_model(MOE["mixtral"](), seed=seed) for seed in (0, 1))
    found = compared(base, other, ROWS)
    assert [(part.facet, part.value, part.rows) for part in found.slices] == [("domain", "code", 2)]


def test_rows_of_one_token_predict_nothing() -> None:
    model = tiny_model(MOE["mixtral"]())
    rows = CalibrationRows("id", tuple(rows_of(1, 1)))
    with pytest.raises(CompositionRefused, match="two tokens"):
        compared(model, model, rows)


def both(base: PreTrainedModel, other: PreTrainedModel) -> tuple[Observed, Observed]:
    batches = pack_for(base, ROWS.rows)
    return observe(base, batches), observe(other, batches)


def test_rows_add_up_to_the_figures() -> None:
    found = measure(*both(*(tiny_model(MOE["mixtral"](), seed=seed) for seed in (0, 1))), ROWS)
    assert list(found.row_ids) == ["0", "1", "2", "3"]
    assert list(found.tokens) == [8, 29, 0, 13]
    assert list(found.routed) == [9, 30, 1, 14]
    assert found.router_same.shape == found.router_kl.shape == (4, 2)
    figures = evaluation_of(found)
    assert figures.kl_mean == pytest.approx(found.kl.sum() / 50)
    code = figures.slices[0]
    assert (code.value, code.rows, code.tokens) == ("code", 2, 37)
    assert code.kl_mean == pytest.approx(found.kl[:2].sum() / 37)


@pytest.mark.parametrize(("name", "is_sigmoid"), [("mixtral", False), ("minimax_m2", True)])
@torch.no_grad()
def test_router_drift_is_the_kl_of_what_the_router_gives(name: str, is_sigmoid: bool) -> None:
    models = [tiny_model(MOE[name](), seed=seed) for seed in (0, 1)]
    ids = torch.from_numpy(ROWS.rows[1].input_ids.astype(np.int64))[None]
    chances = []
    for model in models:
        logits: list[torch.Tensor] = []
        gate = model.get_submodule("model.layers.1.mlp.gate")
        handle = gate.register_forward_hook(
            lambda _, __, output, kept=logits: kept.append(output[0].double())
        )
        model(ids)
        handle.remove()
        scores = logits[0].sigmoid() if is_sigmoid else logits[0].softmax(-1)
        chances.append(scores / scores.sum(-1, keepdim=True))
    p, q = chances
    found = measure(*both(*models), ROWS)
    assert found.router_kl[1, 1] == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-4)


def test_every_architecture_tells_its_routers_drift() -> None:
    for name, make in MOE.items():
        model = tiny_model(make())
        drift = compared(model, model, ROWS).router_same
        assert [(one.share, one.kl) for one in drift] == [(1, 0)] * len(drift), name
        assert drift, name


def test_logits_of_large_models_rest_in_a_file(tmp_path, monkeypatch) -> None:
    model = tiny_model(MOE["minimax_m2"]())
    batches = pack_for(model, ROWS.rows)
    in_memory = observe(model, batches)
    monkeypatch.setattr(observation, "IN_MEMORY_BYTES", 100)
    in_file = observe(model, batches, scratch=tmp_path)
    assert in_file.router.values.dtype == np.float16
    assert list(tmp_path.iterdir()) == [], "the file has no name"
    np.testing.assert_allclose(in_file.router.values, in_memory.router.values, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("by_layer", [False, True])
def test_not_a_number_is_named_by_row_and_layer(monkeypatch, by_layer: bool) -> None:
    model = tiny_model(MOE["mixtral"]())
    batches = pack_for(model, ROWS.rows, 1)
    token = int(ROWS.rows[3].input_ids[0])
    assert all(token not in row.input_ids for row in ROWS.rows[:3])
    with torch.no_grad():
        model.get_submodule("model.embed_tokens").weight[token] = 1e15
    model.get_submodule("model.layers.1").register_forward_hook(
        lambda _, __, output: torch.where(output.abs() > 1e10, torch.inf, output)
    )
    if by_layer:
        monkeypatch.setattr(observation, "last_hidden", forward.layer_by_layer)
    with pytest.raises(NotFinite, match="decoder layer 1 on, first in held-out row d:"):
        observe(model, batches, what="The checkpoint", row_ids=["a", "b", "c", "d"])


def test_a_head_that_overflows_is_named() -> None:
    base, other = (tiny_model(MOE["mixtral"]()) for _ in range(2))
    with torch.no_grad():
        other.get_output_embeddings().weight.fill_(torch.finfo(torch.float32).max)
    with pytest.raises(NotFinite, match=r"logits of the quantized model .* row 0.*output head"):
        compared(base, other, ROWS)


def test_a_job_keeps_its_rows_and_the_error_on_held_out_tokens(job: Job) -> None:
    kept = EvaluatedRows.load(job.spec.directory / "evaluation.npz")
    assert evaluation_of(kept, job.spec.seed) == job.result.evaluation
    assert kept.router_kl.sum() > 0
    for layer in job.result.layers:
        assert layer.output_sqnr_db
        assert layer.held_out_sqnr_db
        assert layer.held_out_sqnr_db == pytest.approx(layer.output_sqnr_db, abs=6)
        assert layer.held_out_sqnr_db != layer.output_sqnr_db

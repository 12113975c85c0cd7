"""Divergence and perplexity, against figures worked out directly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from app.errors import CompositionRefused
from app.jobs.spec import Evaluation
from tests.engine.tiny_models import MOE, rows_of, tiny_model
from workers.engine.calibration_rows import CalibrationRow, CalibrationRows
from workers.engine.evaluation import RowSums, compare, mean_with_interval, observe
from workers.engine.forward import pack_for

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


@torch.no_grad()
def test_figures_are_those_of_every_row_alone() -> None:
    base, other = (tiny_model(MOE["mixtral"](), seed=seed) for seed in (0, 1))
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


def test_slices_need_two_rows_that_can_be_predicted() -> None:
    base, other = (tiny_model(MOE["mixtral"](), seed=seed) for seed in (0, 1))
    found = compared(base, other, ROWS)
    assert [(part.facet, part.value, part.rows) for part in found.slices] == [("domain", "code", 2)]


def test_a_mean_weighs_tokens_and_its_interval_is_seeded() -> None:
    sums = RowSums(
        kl=np.array([1.0, 30.0, 0.0]), loss_base=np.zeros(3), loss=np.zeros(3),
        tokens=np.array([1.0, 10.0, 0.0]),
    )  # fmt: skip
    mean, low, high = mean_with_interval(sums, range(3), seed=3)
    assert mean == pytest.approx(31 / 11)
    assert (low, high) == (1.0, 3.0)
    assert mean_with_interval(sums, range(3), seed=3) == (mean, low, high)


def test_rows_of_one_token_predict_nothing() -> None:
    model = tiny_model(MOE["mixtral"]())
    rows = CalibrationRows("id", tuple(rows_of(1, 1)))
    with pytest.raises(CompositionRefused, match="two tokens"):
        compared(model, model, rows)

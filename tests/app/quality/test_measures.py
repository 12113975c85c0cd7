"""Errors put together by expert and by layer, against cases worked out by hand."""

from __future__ import annotations

import pytest

from app.jobs.spec import ModuleReport
from app.quality.measures import (
    MappingError,
    errors_by_expert,
    errors_by_kind,
    in_decibels,
    joint_error,
    searches_by_layer,
)


def module(name: str, error: float, signal: float | None, layer: int = 0) -> ModuleReport:
    return ModuleReport(layer=layer, module=name, relative_mse=error, sqnr_db=0, signal=signal)


def test_errors_add_up_as_noise_over_signal() -> None:
    found = errors_by_expert(
        [
            module("model.layers.0.mlp.experts.1.up_proj", 0.01, 30.0),
            module("model.layers.0.mlp.experts.1.down_proj", 0.04, 10.0),
            module("model.layers.0.mlp.experts.0.up_proj", 0.02, 10.0),
            module("model.layers.0.self_attn.q_proj", 0.5, 10.0),
            module("model.layers.0.mlp.shared_experts.up_proj", 0.5, 10.0),
        ]
    )
    assert [(one.layer, one.expert, one.weights) for one in found] == [(0, 0, 1), (0, 1, 2)]
    assert found[1].relative_mse == pytest.approx((0.3 + 0.4) / 40)
    assert found[1].sqnr_db == pytest.approx(in_decibels(0.0175))


def test_errors_of_a_kind_add_up_and_name_the_worst() -> None:
    found = errors_by_kind(
        [
            module("model.layers.0.mlp.experts.1.up_proj", 0.01, 30.0),
            module("model.layers.0.mlp.experts.12.up_proj", 0.04, 10.0),
            module("model.layers.0.self_attn.q_proj", 0.5, 10.0),
            module("model.layers.1.mlp.shared_experts.up_proj", 0.3, 10.0, layer=1),
        ]
    )
    assert [(one.layer, one.kind, one.weights) for one in found] == [
        (0, "experts.*.up_proj", 2),
        (0, "self_attn.q_proj", 1),
        (1, "shared_experts.up_proj", 1),
    ]
    assert found[0].relative_mse == pytest.approx((0.3 + 0.4) / 40)
    assert (found[0].worst, found[0].worst_mse) == ("model.layers.0.mlp.experts.12.up_proj", 0.04)


def test_without_signals_errors_are_averaged() -> None:
    assert joint_error([module("a", 0.01, None), module("b", 0.03, 5.0)]) == pytest.approx(0.02)


def test_decibels() -> None:
    assert in_decibels(0.01) == pytest.approx(20)
    assert in_decibels(0.0) == 200


def test_searches_of_a_layer_add_up() -> None:
    one, two = (
        MappingError(layer=3, smooth_layer=name, balance_layers=1, initial_error=before,
                     best_error=after, ratio=after / before)
        for name, before, after in (("a", 2.0, 1.0), ("b", 4.0, 1.5))
    )  # fmt: skip
    found = searches_by_layer([one, two])
    assert [(each.layer, each.mappings, each.initial_error, each.best_error) for each in found] == [
        (3, 2, 6.0, 2.5)
    ]

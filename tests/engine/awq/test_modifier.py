"""Our AWQ against llmcompressor's own, bit by bit, in float32.

The reference is stock ``AWQModifier`` with mappings given as exact names over the same batches, its
crash without an accelerator and the attention mask its tracing loses mended.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from compressed_tensors.offload import remove_dispatch
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.modifiers.transform.awq.mappings import AWQMapping
from transformers import PreTrainedModel

from app.jobs.events import LayerQuantized, MappingSearched, Memory, Progress, RoutedTokens
from app.recipes.schema import ATTENTION, EXPERTS, LINEARS, Group, Recipe, Statistics
from tests.engine.tiny_models import MOE, rows_of, tiny_tokenizer
from workers.engine.awq.reference import stock_on_a_cpu
from workers.engine.formats.packing import pack_weight
from workers.engine.passes.subgraphs import tracing_keeps_config
from workers.engine.plan.plan import plan_of
from workers.engine.quantization.modifiers import quantization_modifier, run_oneshot
from workers.engine.quantization.quantize import Quantized, quantize
from workers.engine.rows.batches import pack

LinearModel = Callable[[str], PreTrainedModel]
BATCHES = pack(rows_of(30, 44, 17, 61, 25, 50), 64)


def recipe_for(*targets: str, **changes: Any) -> Recipe:
    group = Group(name="g", targets=targets, group_size=16, **changes)
    return Recipe(name="r", grid=8, groups=(group,))


@contextmanager
def stock_without_its_faults() -> Iterator[None]:
    with stock_on_a_cpu(), tracing_keeps_config():
        yield


def quantize_with_stock(model: PreTrainedModel, recipe: Recipe) -> dict[str, torch.Tensor]:
    """Dequantized weights by module, and every other parameter by its name."""
    plan = plan_of(model, recipe)
    mappings = [
        AWQMapping(f"re:{re.escape(m.smooth)}$", [f"re:{re.escape(b)}$" for b in m.balance])
        for m in plan.mappings
    ]
    awq = AWQModifier(mappings=mappings, n_grid=recipe.grid, duo_scaling=recipe.duo_scaling)
    with stock_without_its_faults():
        modifiers = [awq, quantization_modifier(model, plan)]
        run_oneshot(
            model, tiny_tokenizer(), modifiers, BATCHES, all_experts=recipe.statistics == "all"
        )
    remove_dispatch(model)
    for name in plan.modules:
        module = model.get_submodule(name)
        packed = pack_weight(module.weight, module.quantization_scheme, torch.float32)
        assert torch.equal(packed.tensors["weight_scale"], module.weight_scale)
        module.weight.data = packed.dequantized()
    return parameters_of(model)


def quantize_with_ours(model: PreTrainedModel, recipe: Recipe) -> tuple[Quantized, list[Any]]:
    plan = plan_of(model, recipe)
    events: list[Any] = []
    dtypes = {name: torch.float32 for name, _ in model.named_modules()}
    tokenizer = tiny_tokenizer()
    done = quantize(model, tokenizer, plan, BATCHES, dtypes, events.append)
    return done, events


def parameters_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    skipped = ("weight_scale", "weight_zero_point")
    return {n: p.detach() for n, p in model.state_dict().items() if not n.endswith(skipped)}


@pytest.mark.parametrize("name", MOE)
@pytest.mark.parametrize("statistics", ["all", "routed"])
def test_experts_equal_stock_bit_for_bit(
    linear_model: LinearModel, name: str, statistics: Statistics
) -> None:
    recipe = recipe_for(EXPERTS).model_copy(update={"statistics": statistics})
    stock = quantize_with_stock(linear_model(name), recipe)
    model = linear_model(name)
    quantize_with_ours(model, recipe)
    ours = parameters_of(model)
    assert ours.keys() == stock.keys()
    assert [n for n in stock if not torch.equal(stock[n], ours[n])] == []


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("minimax_m2", recipe_for(LINEARS)),
        ("llama", recipe_for(LINEARS, symmetric=False)),
        ("qwen3", recipe_for(ATTENTION, bits=8)),
        ("mixtral", recipe_for(EXPERTS).model_copy(update={"duo_scaling": False})),
    ],
)
def test_other_recipes_equal_stock_bit_for_bit(
    linear_model: LinearModel, name: str, recipe: Recipe
) -> None:
    stock = quantize_with_stock(linear_model(name), recipe)
    model = linear_model(name)
    quantize_with_ours(model, recipe)
    ours = parameters_of(model)
    assert [n for n in stock if not torch.equal(stock[n], ours[n])] == []


def test_every_mapping_and_layer_is_told(linear_model: LinearModel) -> None:
    model = linear_model("minimax_m2")
    done, events = quantize_with_ours(model, recipe_for(EXPERTS))
    searched = [event for event in events if isinstance(event, MappingSearched)]
    assert {event.smooth_layer for event in searched} == {m.smooth for m in done.plan.mappings}
    assert all(0 < event.best_error <= event.initial_error for event in searched)
    assert any(event.best_error < event.initial_error for event in searched)
    layers = [event for event in events if isinstance(event, LayerQuantized)]
    assert [event.layer for event in layers] == [0, 1]
    assert all(15 < event.sqnr_db < 30 for event in layers)
    assert len(done.modules) == len(done.packed) == 2 * 8 * 3


def test_a_grams_loss_is_stocks_loss(linear_model: LinearModel) -> None:
    recipe = recipe_for(EXPERTS)
    model = linear_model("mixtral")
    plan = plan_of(model, recipe)
    metrics: dict[str, dict[str, float]] = {}

    class Watched(AWQModifier):
        def _compute_best_scale(self, mapping: Any, *args: Any) -> torch.Tensor:
            best = super()._compute_best_scale(mapping, *args)
            metrics[mapping.smooth_name] = self._error_metrics[-1]
            return best

    mappings = [
        AWQMapping(f"re:{re.escape(m.smooth)}$", [f"re:{re.escape(b)}$" for b in m.balance])
        for m in plan.mappings
    ]
    with stock_without_its_faults():
        awq = Watched(mappings=mappings, n_grid=8)
        modifiers = [awq, quantization_modifier(model, plan)]
        run_oneshot(model, tiny_tokenizer(), modifiers, BATCHES, all_experts=True)
    _, events = quantize_with_ours(linear_model("mixtral"), recipe)
    searched = [event for event in events if isinstance(event, MappingSearched)]
    assert len(searched) == len(metrics)
    for event in searched:
        stock = metrics[event.smooth_layer]
        assert event.initial_error == pytest.approx(stock["initial_error"], rel=1e-4)
        assert event.best_error == pytest.approx(stock["best_error"], rel=1e-4)


def test_an_expert_without_a_token_is_rounded_not_broken(linear_model: LinearModel) -> None:
    model = linear_model("minimax_m2")
    with torch.no_grad():
        for layer in (0, 1):
            model.get_submodule(f"model.layers.{layer}.mlp").e_score_correction_bias[3] = -100
    recipe = recipe_for(EXPERTS).model_copy(update={"statistics": "routed"})
    done, events = quantize_with_ours(model, recipe)
    unreached = "model.layers.0.mlp.experts.3.up_proj"
    assert unreached not in {e.smooth_layer for e in events if isinstance(e, MappingSearched)}
    assert len(done.packed) == 2 * 8 * 3
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


def test_the_model_runs_plainly_with_the_packed_values(linear_model: LinearModel) -> None:
    model = linear_model("minimax_m2")
    done, _ = quantize_with_ours(model, recipe_for(EXPERTS))
    for name, packed in done.packed.items():
        assert torch.equal(model.get_submodule(name).weight, packed.dequantized())
        assert not model.get_submodule(name).quantization_enabled


def test_a_floor_reaches_every_expert(linear_model: LinearModel) -> None:
    model = linear_model("minimax_m2")
    with torch.no_grad():
        for layer in (0, 1):
            model.get_submodule(f"model.layers.{layer}.mlp").e_score_correction_bias[3] = -100
    recipe = recipe_for(EXPERTS).model_copy(update={"statistics": "routed", "floor": 20})
    done, events = quantize_with_ours(model, recipe)
    searched = {event.smooth_layer for event in events if isinstance(event, MappingSearched)}
    assert searched == {mapping.smooth for mapping in done.plan.mappings}
    counts = [event.tokens for event in events if isinstance(event, RoutedTokens)]
    assert [tokens[3] for tokens in counts] == [0, 0]
    assert all(sum(tokens) == 2 * 227 for tokens in counts)  # top-2 of every token


def test_fast_tries_less_and_finds_scales_as_good_nearly(linear_model: LinearModel) -> None:
    errors = {}
    for search in ("exact", "fast"):
        recipe = recipe_for(EXPERTS).model_copy(update={"search": search, "grid": 12})
        _, events = quantize_with_ours(linear_model("mixtral"), recipe)
        layers = [event for event in events if isinstance(event, LayerQuantized)]
        errors[search] = sum(event.output_relative_mse or 0 for event in layers)
    assert 0 < errors["fast"] < 1.5 * errors["exact"]


def test_without_smoothing_only_rounding_is_left(linear_model: LinearModel) -> None:
    recipe = recipe_for(EXPERTS).model_copy(update={"smooth": False})
    model, source = linear_model("mixtral"), linear_model("mixtral")
    done, events = quantize_with_ours(model, recipe)
    assert done.plan.mappings == []
    assert not any(isinstance(event, MappingSearched) for event in events)
    for name, parameter in source.named_parameters():
        if name.removesuffix(".weight") not in done.packed:
            assert torch.equal(parameter, model.get_parameter(name))


def test_stock_can_be_chosen_and_is_stock(linear_model: LinearModel) -> None:
    recipe = recipe_for(EXPERTS)
    stock = quantize_with_stock(linear_model("mixtral"), recipe)
    model = linear_model("mixtral")
    _, events = quantize_with_ours(model, recipe.model_copy(update={"search": "stock"}))
    ours = parameters_of(model)
    assert [n for n in stock if not torch.equal(stock[n], ours[n])] == []
    assert any(isinstance(event, MappingSearched) for event in events)


def test_the_stream_says_how_far_it_is(linear_model: LinearModel) -> None:
    _, events = quantize_with_ours(linear_model("minimax_m2"), recipe_for(EXPERTS))
    progress = [event for event in events if isinstance(event, Progress)]
    assert (progress[-1].done, progress[-1].total) == (2, 2)
    assert progress[-1].eta_seconds == 0
    assert {event.layer for event in progress} == {None, 0, 1}
    assert any(event.batch == event.batches == len(BATCHES) for event in progress)
    memory = [event for event in events if isinstance(event, Memory)]
    assert [event.layer for event in memory] == [0, 1]
    assert all(0 < m.resident_bytes <= m.resident_peak_bytes * 1.05 for m in memory)

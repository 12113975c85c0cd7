"""What a recipe quantizes, and the sentences for what it cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from app.errors import ModelRefused, RecipeRefused
from app.recipes.schema import ATTENTION, EXPERTS, LINEARS, PRESETS, Group, Recipe
from tests.engine.tiny_models import DENSE, MOE, granite_moe, save, tiny_model
from workers.engine.models.loading import linearize, load_model
from workers.engine.models.meta_model import meta_model
from workers.engine.plan.plan import plan_of
from workers.engine.plan.targets import quantized_modules
from workers.engine.preflight.refusals import refuse_unfit


def recipe_of(*groups: Group, ignore: tuple[str, ...] = (r"^lm_head$",)) -> Recipe:
    return Recipe(name="mine", groups=groups, ignore=ignore)


def experts(size: int | None = 16, name: str = "experts") -> Group:
    return Group(name=name, targets=(EXPERTS,), group_size=size)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return linearize(tiny_model(MOE["minimax_m2"]()))


def test_the_experts_and_nothing_else(model: nn.Module) -> None:
    chosen = quantized_modules(model, recipe_of(experts()))
    assert len(chosen) == 2 * 8 * 3
    assert all(".experts." in name for name in chosen)


def test_a_group_size_that_does_not_divide_is_refused_with_those_that_fit(model: nn.Module) -> None:
    with pytest.raises(RecipeRefused) as refused:
        quantized_modules(model, recipe_of(experts(128)))
    sentence = refused.value.sentence
    assert "Group size 128 does not divide the 64 input columns of model.layers.0.mlp" in sentence
    assert sentence.endswith("sizes that fit: 64, 32, 16.")


def test_a_pattern_that_matches_nothing_is_named(model: nn.Module) -> None:
    seed = Group(name="seed", targets=(r".*block_sparse_moe\.experts\.\d+\.w1$",))
    with pytest.raises(RecipeRefused, match=r"block_sparse_moe.*matches no Linear") as refused:
        quantized_modules(model, recipe_of(seed))
    assert "mlp.experts." in refused.value.sentence


def test_two_groups_may_not_want_one_module(model: nn.Module) -> None:
    with pytest.raises(RecipeRefused, match="matched by two groups"):
        quantized_modules(model, recipe_of(experts(16), experts(32, "again")))


def test_ignoring_everything_is_refused(model: nn.Module) -> None:
    with pytest.raises(RecipeRefused, match="ignores every module"):
        quantized_modules(model, recipe_of(experts(), ignore=(".*",)))


def test_ignored_modules_are_left_out(model: nn.Module) -> None:
    group = Group(name="all", targets=(LINEARS,), group_size=16)
    chosen = quantized_modules(model, recipe_of(group, ignore=(ATTENTION,)))
    assert not any("self_attn" in name for name in chosen)


def test_the_meta_model_has_the_same_modules(source: Path) -> None:
    recipe = PRESETS["experts-w4a16-g32"]
    loaded = quantized_modules(linearize(load_model(source)), recipe)
    on_meta = meta_model(source)
    assert list(quantized_modules(on_meta, recipe)) == list(loaded)
    assert {parameter.device.type for parameter in on_meta.parameters()} == {"meta"}


def test_an_experts_recipe_on_a_dense_model_is_refused(tmp_path: Path) -> None:
    directory = save(tiny_model(DENSE["llama"]()), tmp_path / "llama")
    with pytest.raises(RecipeRefused, match="matches no Linear"):
        refuse_unfit(directory, PRESETS["experts-w4a16-g32"])


def test_fused_sources_are_refused_before_the_work(tmp_path: Path) -> None:
    directory = save(tiny_model(granite_moe()), tmp_path / "granite")
    with pytest.raises(ModelRefused, match="keeps the experts of a layer in one tensor"):
        refuse_unfit(directory, recipe_of(experts()))


@pytest.mark.parametrize(
    ("name", "gate"),
    [
        ("phimoe", "model.layers.0.mlp.router"),
        ("qwen2_moe", "model.layers.0.mlp.shared_expert_gate"),
    ],
)
def test_what_decides_where_tokens_go_is_not_quantized(
    saved: Callable[[str], Path], name: str, gate: str
) -> None:
    everything = Group(name="all", targets=(r".*",), group_size=16)
    with pytest.raises(RecipeRefused, match=rf"^{gate} decides where tokens go"):
        plan_of(meta_model(saved(name)), recipe_of(everything))
    ignored = recipe_of(everything, ignore=("^lm_head$", r".*(router|shared_expert_gate)$"))
    assert gate not in plan_of(meta_model(saved(name)), ignored).modules

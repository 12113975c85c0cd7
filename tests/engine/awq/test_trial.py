"""The weights of a grid point, stacked for a layer's experts, are those rounded one by one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from app.recipes.schema import EXPERTS, LINEARS
from tests.engine.awq.test_modifier import recipe_for
from tests.engine.tiny_models import MOE
from workers.engine.awq.experts_forward import ExpertsRuns, members_of
from workers.engine.awq.smoothing import args_of, weight_of
from workers.engine.awq.trial import Trial
from workers.engine.formats.rounding import Rounder
from workers.engine.models.architecture import moe_layers
from workers.engine.plan.targets import quantized_modules, scheme_of


@pytest.mark.parametrize("name", MOE)
@pytest.mark.parametrize("target", [EXPERTS, LINEARS])
def test_a_grid_point(
    linear_model: Callable[[str], PreTrainedModel], name: str, target: str
) -> None:
    model = linear_model(name)
    for module, group in quantized_modules(model, recipe_for(target)).items():
        model.get_submodule(module).quantization_scheme = scheme_of(group)
    layer = moe_layers(model)[0]
    block = model.get_submodule(layer.block_name)
    experts = model.get_submodule(layer.experts_name)
    balance = [each for e in members_of(experts) for each in (e.gate_proj, e.up_proj)]
    router = model.get_submodule(layer.router_name)
    before = {each: weight_of(each).clone() for each in (*balance, router)}
    scales = torch.rand(balance[0].in_features, dtype=torch.float64) + 0.3
    runs = ExpertsRuns()
    trial = Trial(block, [*balance, router], before, runs)
    with trial.running():
        assert runs.trial.keys() == {experts}
        trial.set(scales)
        stacked = runs.trial[experts].gate_up
        for expert, both in zip(members_of(experts), stacked, strict=True):
            for half, each in zip(both.chunk(2), (expert.gate_proj, expert.up_proj), strict=True):
                alone = torch.empty_like(half)
                Rounder(args_of(each)).scaled(before[each], scales, alone)
                assert torch.equal(half, alone)
    assert not runs.trial
    assert all(torch.equal(weight_of(each), weight) for each, weight in before.items())

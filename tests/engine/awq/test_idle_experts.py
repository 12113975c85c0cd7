"""Experts rest in a calibration pass only where no hook could see what they give back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from tests.engine.tiny_models import MOE
from workers.engine.awq.experts_forward import lean_experts
from workers.engine.awq.idle_experts import watched
from workers.engine.models.architecture import moe_layers
from workers.engine.passes.forward import hidden_states

LinearModel = Callable[[str], PreTrainedModel]
TOKENS = torch.arange(9)[None]


@pytest.fixture
def model(linear_model: LinearModel) -> PreTrainedModel:
    return linear_model("mixtral")


def unseen_by_name(model: PreTrainedModel) -> set[str]:
    """The experts modules that are found to be unseen in one forward of the whole model."""
    with lean_experts(), watched(list(model.modules())) as unseen:
        hidden_states(model, TOKENS, TOKENS)
    return {name for name, module in model.named_modules() if module in unseen}


def listen(module: nn.Module) -> list[torch.Tensor]:
    seen: list[torch.Tensor] = []
    module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    return seen


def test_nothing_is_hooked_after_the_last_experts(model: PreTrainedModel) -> None:
    first, last = moe_layers(model)
    listen(model.get_submodule(first.router_name))
    assert unseen_by_name(model) == {first.experts_name, last.experts_name}
    listen(model.get_submodule(last.router_name))
    assert unseen_by_name(model) == {last.experts_name}


def test_a_hook_inside_the_experts_sees_them(model: PreTrainedModel) -> None:
    last = moe_layers(model)[-1]
    listen(model.get_submodule(f"{last.experts_name}.2.gate_proj"))
    assert unseen_by_name(model) == set()


def test_a_hook_on_the_blocks_output_sees_them(model: PreTrainedModel) -> None:
    last = moe_layers(model)[-1]
    model.get_submodule(last.block_name).register_forward_hook(lambda *_: None)
    assert unseen_by_name(model) == set()


@pytest.mark.parametrize("name", MOE)
def test_what_hooks_see_is_the_same_while_experts_rest(
    linear_model: LinearModel, name: str
) -> None:
    model = linear_model(name)
    layer = moe_layers(model)[-1]
    block = model.get_submodule(layer.block_name)
    hooked = [m for m in block.modules() if m.__class__.__name__ == "Linear" or m is block]
    experts = set(model.get_submodule(layer.experts_name).modules())
    seen = [listen(module) for module in hooked if module not in experts]
    with lean_experts() as runs:
        with watched(list(model.modules())) as unseen:
            hidden_states(model, TOKENS, TOKENS)
        with runs.rest({each for each in unseen if each in experts}):
            hidden_states(model, TOKENS, TOKENS)
    for values in seen:
        assert torch.equal(values[0], values[1])

"""A recipe resolved on a model, before anything is changed."""

from __future__ import annotations

from dataclasses import dataclass

from compressed_tensors.quantization import QuantizationScheme
from llmcompressor.modeling.offset_norm import NormCalibrationModule, _is_registered
from torch import nn
from transformers import PreTrainedModel

from app.errors import RecipeRefused
from app.recipes.schema import Group, Recipe
from workers.engine.models.architecture import layer_index, moe_layers
from workers.engine.plan.mappings import TreeMapping, tree_mappings
from workers.engine.plan.targets import quantized_modules, scheme_of


@dataclass(frozen=True)
class Plan:
    """What a recipe does to a model: the group of each quantized module, and the mappings."""

    recipe: Recipe
    modules: dict[str, Group]
    mappings: list[TreeMapping]

    def scheme(self, module: str) -> QuantizationScheme:
        """How a quantized module's weight is quantized."""
        return scheme_of(self.modules[module])


def plan_of(model: PreTrainedModel, recipe: Recipe) -> Plan:
    """Resolve a recipe on a linearized model, before anything is changed.

    Raises RecipeRefused when the recipe does not fit: see ``targets`` and ``mappings``.
    """
    modules = quantized_modules(model, recipe)
    outside = next((name for name in modules if layer_index(name) is None), None)
    if outside is not None:
        raise RecipeRefused(
            f"{outside} is outside the decoder layers and cannot be quantized: add it to ignore."
        )
    routers = {layer.router_name for layer in moe_layers(model)}
    gate = next((name for name in modules if name in routers or _is_gate(model, name)), None)
    if gate is not None:
        raise RecipeRefused(
            f"{gate} decides where tokens go, and serving engines keep it as it is: add it to "
            "ignore."
        )
    mappings = tree_mappings(model, frozenset(modules)) if recipe.smooth else []
    return Plan(recipe, modules, mappings)


def _is_gate(model: nn.Module, name: str) -> bool:
    """Whether a Linear gives one number a token: the gate of a shared expert."""
    return bool(model.get_submodule(name).out_features == 1)


def names_of_smoothed(plan: Plan) -> frozenset[str]:
    """Every module whose weight smoothing may change."""
    return frozenset(
        name for mapping in plan.mappings for name in (mapping.smooth, *mapping.balance)
    )


def refuse_wrong_in_stock(model: nn.Module, plan: Plan) -> None:
    """Raise RecipeRefused for a norm that stock llmcompressor would divide wrongly: one that adds
    one to its weight and is of a class it does not know."""
    for mapping in plan.mappings:
        kind = type(model.get_submodule(mapping.smooth)).__name__
        if mapping.offset and not _is_registered(kind, NormCalibrationModule):
            raise RecipeRefused(
                f"{mapping.smooth} adds one to its weight, and llmcompressor 0.14 does not know it "
                f"of {kind}: it would smooth it wrongly. Quantize here, or without AWQ."
            )


def carries_every_token(recipe: Recipe) -> bool:
    """Whether outputs are carried on with every expert run on every token. Stock does it with
    statistics of all tokens; the sums are the same but for the last bits, which is why only a
    search that promises stock's bits pays for it."""
    return recipe.statistics == "all" and recipe.search != "fast" and recipe.smooth


def grid_points(recipe: Recipe) -> int:
    """How many points a recipe's search tries, as llmcompressor's ``n_grid``; the fast search
    takes half of the ratios.

    llmcompressor counts the unscaled point of duo scaling as one of them, and divides by the
    ratios left minus one, so a grid needs at least 3 points (2 without duo scaling).
    """
    ratios = recipe.grid // 2 if recipe.search == "fast" else recipe.grid
    return max(ratios, 3 if recipe.duo_scaling else 2)

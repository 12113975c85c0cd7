"""``quantization_config`` of a checkpoint's ``config.json``.

Serving engines resolve targets by the module names of the checkpoint (``….experts.0.w1``),
transformers by its own (it looks for "experts" in a target, then decompresses while it fuses).
So a target that matches modules in one naming only is followed by one for the checkpoint's names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import compressed_tensors
from compressed_tensors.quantization import (
    QuantizationConfig,
    QuantizationScheme,
    QuantizationStatus,
)
from torch import nn

from app.recipes.narrowing import narrowed, patterns_of
from workers.engine.formats.fp8_blocks import Fp8Blocks
from workers.engine.formats.packing import format_of
from workers.engine.models.architecture import layer_index
from workers.engine.models.checkpoint_names import EXPERT_NUMBER, CheckpointNames
from workers.engine.plan.plan import Plan
from workers.engine.plan.targets import scheme_of

MIXED = "mixed-precision"
FP8_GROUP = "fp8_blocks"


def quantization_config(
    model: nn.Module,
    plan: Plan,
    names: CheckpointNames,
    blocks: Fp8Blocks | None = None,
    in_blocks: Iterable[str] = (),
) -> dict[str, Any]:
    """The section as compressed-tensors writes it: a group for each group of the recipe, one for
    the modules of the source that stay in FP8 ``blocks`` (``in_blocks``, by their names in the
    checkpoint), and every other Linear or router under ``ignore``, by its name there. So are
    tensors that no model loads (a multi-token-prediction head has experts too) where a target
    matches them."""
    groups: dict[str, QuantizationScheme] = {}
    places = {name: names.source_weight(name).removesuffix(".weight") for name in plan.modules}
    packed = set(places.values())
    kept = [name for name in in_blocks if name not in packed]
    every = [*(name for name, _ in model.named_modules()), *kept]
    targets = narrowed(plan.recipe, plan.modules, every)
    for group in plan.recipe.groups:
        stored = [places[name] for name, chosen in plan.modules.items() if chosen == group]
        others = [places[name] for name, chosen in plan.modules.items() if chosen != group]
        mine = targets[group.name]
        patterns = [*mine, *_missing_patterns(mine, stored, [*others, *kept])]
        groups[group.name] = scheme_of(group, [f"re:{pattern}" for pattern in patterns])
    if blocks is not None and kept:
        groups[FP8_GROUP] = blocks.scheme(_fp8_targets(kept, names, packed.union(plan.modules)))
    formats = {name: format_of(scheme) for name, scheme in groups.items()}
    config = QuantizationConfig(
        config_groups=groups,
        format=next(iter(formats.values())) if len(set(formats.values())) == 1 else MIXED,
        quantization_status=QuantizationStatus.COMPRESSED,
        ignore=_left_alone(model, plan, names, set(kept), groups.values()),
    )
    section = config.model_dump(mode="json", exclude={"quant_method"})
    for name, group in section["config_groups"].items():
        group["format"] = formats[name]
    return {
        "quant_method": "compressed-tensors",
        "version": compressed_tensors.__version__,
        **section,
    }


def _missing_patterns(
    patterns: Iterable[str], stored: Iterable[str], others: Iterable[str]
) -> list[str]:
    """Patterns for the checkpoint's module names that ``patterns`` do not match, one a kind. They
    name layers where they would match modules of ``others`` groups too."""
    missed = [name for name in stored if not any(re.match(each, name) for each in patterns)]
    found = []
    for of_experts in (True, False):
        names = [name for name in missed if bool(EXPERT_NUMBER.search(name)) is of_experts]
        if not names:
            continue
        leaves = "|".join(sorted({re.escape(name.rpartition(".")[2]) for name in names}))
        ending = rf"\.experts\.\d+\.({leaves})$" if of_experts else rf"\.({leaves})$"
        pattern = f".*{ending}"
        if any(re.match(pattern, name) for name in others):
            layers = sorted({str(layer_index(name)) for name in names}, key=int)
            pattern = rf".*\.layers\.({'|'.join(layers)})\..*{ending}"
        found.append(pattern)
    return found


def _fp8_targets(kept: Iterable[str], names: CheckpointNames, packed: Iterable[str]) -> list[str]:
    """Patterns of the modules that stay in FP8 blocks and of none that is ``packed``, one for each
    kind, by the checkpoint's names and, where those differ, by transformers' own."""
    both: dict[str, None] = {}
    for name in kept:
        module = names.parameter_of.get(f"{name}.weight", "").removesuffix(".weight")
        both.update(dict.fromkeys(each for each in (name, module) if each))
    return [f"re:{pattern}" for pattern in patterns_of(both, packed)]


def _left_alone(
    model: nn.Module,
    plan: Plan,
    names: CheckpointNames,
    in_blocks: set[str],
    groups: Iterable[QuantizationScheme],
) -> list[str]:
    """Modules with a weight of two dimensions that keep it, by checkpoint name, what the model
    does not load though a target of ``groups`` matches it, and the recipe's own patterns.
    Embeddings are not listed: no engine would quantize them."""
    kept = []
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if weight is None or weight.ndim != 2 or isinstance(module, nn.Embedding):
            continue
        if name not in plan.modules:
            kept.append(names.source_of.get(f"{name}.weight", f"{name}.weight"))
    targets = [target.removeprefix("re:") for group in groups for target in group.targets]
    strangers = (s for s in names.strangers(model.state_dict()) if s.endswith(".weight"))
    kept += [s for s in strangers if any(re.match(t, s.removesuffix(".weight")) for t in targets)]
    listed = [name.removesuffix(".weight") for name in kept]
    listed = [name for name in listed if name not in in_blocks]
    return [*listed, *(f"re:{pattern}" for pattern in plan.recipe.ignore)]

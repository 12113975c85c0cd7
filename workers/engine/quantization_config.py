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
from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus
from torch import nn

from workers.engine.checkpoint_names import EXPERT_NUMBER, CheckpointNames
from workers.engine.quantization import Plan
from workers.engine.targets import scheme_of

FORMAT = "pack-quantized"


def quantization_config(model: nn.Module, plan: Plan, names: CheckpointNames) -> dict[str, Any]:
    """The section as compressed-tensors writes it: a group for each group of the recipe, and
    every Linear or router left alone under ``ignore``, by its name in the checkpoint."""
    groups = {}
    for group in plan.recipe.groups:
        members = [name for name, chosen in plan.modules.items() if chosen == group]
        stored = [names.source_weight(name).removesuffix(".weight") for name in members]
        patterns = [*group.targets, *_missing_patterns(group.targets, stored)]
        groups[group.name] = scheme_of(group, [f"re:{pattern}" for pattern in patterns])
    config = QuantizationConfig(
        config_groups=groups,
        format=FORMAT,
        quantization_status=QuantizationStatus.COMPRESSED,
        ignore=_left_alone(model, plan, names),
    )
    section = config.model_dump(mode="json", exclude={"quant_method"})
    for group in section["config_groups"].values():
        group["format"] = FORMAT
    return {
        "quant_method": "compressed-tensors",
        "version": compressed_tensors.__version__,
        **section,
    }


def _missing_patterns(patterns: Iterable[str], stored: Iterable[str]) -> list[str]:
    """Patterns for the checkpoint's module names that ``patterns`` do not match, one a kind."""
    missed = [name for name in stored if not any(re.match(each, name) for each in patterns)]
    leaves: dict[bool, set[str]] = {True: set(), False: set()}
    for name in missed:
        leaves[EXPERT_NUMBER.search(name) is not None].add(re.escape(name.rpartition(".")[2]))
    found = []
    if leaves[True]:
        found.append(rf".*\.experts\.\d+\.({'|'.join(sorted(leaves[True]))})$")
    if leaves[False]:
        found.append(rf".*\.({'|'.join(sorted(leaves[False]))})$")
    return found


def _left_alone(model: nn.Module, plan: Plan, names: CheckpointNames) -> list[str]:
    """Modules with a weight of two dimensions that keep it, by checkpoint name, plus the
    recipe's own patterns. Embeddings are not listed: no engine would quantize them."""
    kept = []
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if weight is None or weight.ndim != 2 or isinstance(module, nn.Embedding):
            continue
        if name not in plan.modules:
            kept.append(names.source_of.get(f"{name}.weight", f"{name}.weight"))
    listed = [name.removesuffix(".weight") for name in kept]
    return [*listed, *(f"re:{pattern}" for pattern in plan.recipe.ignore)]

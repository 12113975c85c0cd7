"""Which tensor of the source checkpoint each weight of the linearized model came from.

transformers 5 renames tensors on loading and fuses the experts' (``block_sparse_moe.experts.0.w1``
becomes a slice of ``mlp.experts.gate_up_proj``); linearization names them once more
(``mlp.experts.0.gate_proj``). The way back is built from transformers' own conversion mapping,
applied to the names the source really has, so an export can write exactly the source's names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from app.errors import ModelRefused

EXPERT_NUMBER = re.compile(r"\.experts\.(\d+)\.")
FUSED_PARTS = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
FUSED_PARTS_WITHOUT_GATE = {"up_proj": ("up_proj",), "down_proj": ("down_proj",)}


@dataclass(frozen=True)
class CheckpointNames:
    """``source_of`` maps a parameter of the linearized model (``….gate_proj.weight``) to its name
    in the checkpoint; ``parameter_of`` is the reverse."""

    source_of: dict[str, str]
    parameter_of: dict[str, str]

    def source_weight(self, module: str) -> str:
        """The checkpoint's name of a module's weight.

        Raises ModelRefused when the checkpoint has no tensor that is this weight alone.
        """
        name = self.source_of.get(f"{module}.weight")
        if name is None:
            raise ModelRefused(
                f"The checkpoint has no tensor of its own for {module}: it keeps the experts of a "
                "layer in one tensor, for which serving engines know no packed form, so leave the "
                "experts out of the recipe's targets (its attention can be quantized)."
            )
        return name


def checkpoint_names(model: PreTrainedModel, source_names: Iterable[str]) -> CheckpointNames:
    """Relate the parameters of a linearized model to the names in its source checkpoint.

    Tensors that the model does not load (a multi-token-prediction head, say) are in neither map.
    """
    transforms = get_model_conversion_mapping(model, add_legacy=True)
    renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
    converters = [each for each in transforms if isinstance(each, WeightConverter)]
    state = model.state_dict(keep_vars=True)
    source_of: dict[str, str] = {}
    for source in source_names:
        target, pattern = rename_source_key(
            source, renamings, converters, model.base_model_prefix, state
        )
        name = target if pattern is None else _linear_name(source, target, pattern, converters)
        if name in state:
            source_of[name] = source
    return CheckpointNames(source_of, {source: name for name, source in source_of.items()})


def _linear_name(
    source: str, target: str, pattern: str, converters: list[WeightConverter]
) -> str | None:
    """The linearized name of an expert's tensor that a converter would fuse into ``target``."""
    experts, _, fused = target.rpartition(".")
    number = EXPERT_NUMBER.search(source)
    converter = next(each for each in converters if pattern in each.source_patterns)
    parts = {**FUSED_PARTS_WITHOUT_GATE, **FUSED_PARTS}.get(fused, ())
    if number is None or len(parts) != len(converter.source_patterns):
        return None
    projection = parts[converter.source_patterns.index(pattern)]
    return f"{experts}.{number[1]}.{projection}.weight"

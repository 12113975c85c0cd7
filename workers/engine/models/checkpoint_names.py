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
EXPERT_PARAMETER = re.compile(r"(.*\.experts)\.\d+\.(\w+)\.(weight|bias)$")
FUSED_PARTS = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
FUSED_PARTS_WITHOUT_GATE = {"up_proj": ("up_proj",), "down_proj": ("down_proj",)}


@dataclass(frozen=True)
class CheckpointNames:
    """``source_of`` maps a parameter of the linearized model (``….gate_proj.weight``) to its name
    in the checkpoint; ``parameter_of`` is the reverse. ``others`` maps a tensor that is no
    parameter of its own, being experts in one, a part of a parameter or a stranger, to its name in
    transformers.
    """

    source_of: dict[str, str]
    parameter_of: dict[str, str]
    others: dict[str, str]

    def is_fused(self, parameter: str) -> bool:
        """Whether the checkpoint holds an expert's parameter in one tensor with other experts'."""
        return not _holders(parameter).isdisjoint(self.others.values())

    def is_made(self, parameter: str) -> bool:
        """Whether transformers makes a parameter of several tensors of the checkpoint (the
        convolutions of Kimi Linear)."""
        return parameter in self.others.values()

    def strangers(self, parameters: Iterable[str]) -> list[str]:
        """The checkpoint's tensors that hold none of the linearized model's ``parameters``."""
        held = {holder for each in parameters for holder in (each, *_holders(each))}
        return [source for source, name in self.others.items() if name not in held]

    def source_weight(self, module: str) -> str:
        """The checkpoint's name of a module's weight.

        Raises ModelRefused when the checkpoint has no tensor that is this weight alone.
        """
        name = self.source_of.get(f"{module}.weight")
        if name is not None:
            return name
        if self.is_fused(f"{module}.weight"):
            raise ModelRefused(
                f"The checkpoint has no tensor of its own for {module}: it keeps the experts of a "
                "layer in one tensor, for which serving engines know no packed form, so leave the "
                "experts out of the recipe's targets (its attention can be quantized)."
            )
        if self.is_made(f"{module}.weight"):
            raise ModelRefused(
                f"The checkpoint has no tensor of its own for {module}: transformers makes it of "
                "several, so it can be neither quantized nor smoothed. Leave it, and what reads "
                "the same norm, out of the recipe's targets."
            )
        raise ModelRefused(f"The checkpoint has no tensor for {module}: fetch its files again.")


def checkpoint_names(model: PreTrainedModel, source_names: Iterable[str]) -> CheckpointNames:
    """Relate the parameters of a linearized model to the names in its source checkpoint.

    Tensors that the model does not load (a multi-token-prediction head, say) are in no map.
    """
    transforms = get_model_conversion_mapping(model, add_legacy=True)
    renamings = [each for each in transforms if isinstance(each, WeightRenaming)]
    converters = [each for each in transforms if isinstance(each, WeightConverter)]
    state = model.state_dict(keep_vars=True)
    source_of: dict[str, str] = {}
    others: dict[str, str] = {}
    for source in source_names:
        target, pattern = rename_source_key(
            source, renamings, converters, model.base_model_prefix, state
        )
        name = target if pattern is None else _linear_name(source, target, pattern, converters)
        if name in state:
            source_of[name] = source
        else:
            others[source] = target
    parameter_of = {source: name for name, source in source_of.items()}
    return CheckpointNames(source_of, parameter_of, others)


def _holders(parameter: str) -> set[str]:
    """What a tensor is called that holds an expert's parameter with other experts'."""
    found = EXPERT_PARAMETER.match(parameter)
    if found is None:
        return set()
    experts, projection, leaf = found.groups()
    ending = "" if leaf == "weight" else f"_{leaf}"
    kinds = (*FUSED_PARTS.items(), *FUSED_PARTS_WITHOUT_GATE.items())
    return {f"{experts}.{fused}{ending}" for fused, parts in kinds if projection in parts}


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

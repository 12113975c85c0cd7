"""Whether transformers can load the experts of a checkpoint.

transformers 5.17 fuses the experts of a layer as it loads them, and unpacks them on the way: by one
scheme for the whole model (``integrations.compressed_tensors.get_experts_scheme``) and without zero
points (its pull request 47430). With a group of integers it looks for packed tensors of every
expert, and gives those that are not packed random values. Serving engines ask module by module.
"""

from __future__ import annotations

from collections.abc import Collection

from compressed_tensors.quantization import QuantizationArgs, QuantizationType


def why_not_reloaded(
    experts: Collection[QuantizationArgs | None], groups: Collection[QuantizationArgs]
) -> str | None:
    """What keeps transformers from loading a checkpoint; None where nothing does.

    ``experts`` are the schemes of the experts that have tensors of their own, None among them
    where some stay as they are; ``groups`` those of all groups of the recipe.
    """
    packed = {args.model_dump_json() for args in experts if args is not None}
    if any(args is not None and not args.symmetric for args in experts):
        return "the experts get zero points"
    if None in experts and any(args.type == QuantizationType.INT for args in groups):
        return "some experts are not packed" if packed else "the experts are not packed"
    return "the experts have more than one scheme" if len(packed) > 1 else None

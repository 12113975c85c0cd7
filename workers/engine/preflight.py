"""What can be refused before any weight is loaded: on the meta device, from names and shapes."""

from __future__ import annotations

from pathlib import Path

import torch

from app.errors import ModelRefused
from app.recipes.schema import Recipe
from workers.engine.export import refuse_unexportable
from workers.engine.library_output import hush
from workers.engine.loading import linearize, load_tokenizer, refuse_unusable_source
from workers.engine.targets import quantized_modules

hush()

from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel  # noqa: E402


def refuse_unfit(directory: Path, recipe: Recipe | None) -> None:
    """Raise ModelRefused or RecipeRefused for what a job on this model would fail at: a source
    that cannot be used, no tokenizer, a recipe that does not fit, names that cannot be kept."""
    refuse_unusable_source(directory)
    load_tokenizer(directory)
    if recipe is not None:
        model = meta_model(directory)
        modules = quantized_modules(model, recipe)
        refuse_unexportable(model, list(modules), directory)


def meta_model(directory: Path) -> PreTrainedModel:
    """The model's linearized module tree on the meta device, from its config alone."""
    try:
        config = AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
            return linearize(model)
    except (OSError, ValueError, KeyError, ImportError) as error:
        first_line = (str(error).strip() or repr(error)).splitlines()[0]
        raise ModelRefused(f"The model at {directory} cannot be built: {first_line}") from error

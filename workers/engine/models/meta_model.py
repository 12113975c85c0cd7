"""A model's module tree without its weights."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from app.errors import ModelRefused
from workers.engine.models.loading import linearize, read_config


def meta_model(directory: Path) -> PreTrainedModel:
    """The model's linearized module tree on the meta device, from its config alone.

    The latest one is kept, because several steps of a job look at it: it must not be changed.
    """
    return _meta_model(directory, _sha256_of_config(directory))


@functools.lru_cache(maxsize=1)
def _meta_model(directory: Path, _: str) -> PreTrainedModel:
    try:
        config = AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
        if type(config) not in AutoModelForCausalLM._model_mapping:
            raise ModelRefused(
                f"The model at {directory} is of the kind {config.model_type}, of which "
                "transformers builds no causal language model: one of text alone is needed."
            )
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
            return linearize(model)
    except ModelRefused:
        raise
    except Exception as error:  # a configuration may say anything to the model's own code
        first_line = (str(error).strip() or repr(error)).splitlines()[0]
        raise ModelRefused(f"The model at {directory} cannot be built: {first_line}") from error


def _sha256_of_config(directory: Path) -> str:
    read_config(directory)
    return hashlib.sha256((directory / "config.json").read_bytes()).hexdigest()

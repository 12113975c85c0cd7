"""A job's model quantized in memory: in batches that its memory holds, on from finished layers."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel

from app.errors import OutOfMemory
from app.jobs.states import Step
from app.recipes.schema import Recipe
from workers.engine.device import release_memory
from workers.engine.formats.fp8_blocks import FP8, blocks_of
from workers.engine.formats.safetensors_files import Shards
from workers.engine.models.checkpoint_names import checkpoint_names
from workers.engine.models.loading import linearize, load_tokenizer, read_config
from workers.engine.models.meta_model import meta_model
from workers.engine.passes.forward import pack_for
from workers.engine.plan.plan import Plan, names_of_smoothed, plan_of
from workers.engine.quantization.layer_store import LayerStore
from workers.engine.quantization.quantize import Quantized, quantize
from workers.engine.quantization.resuming import fingerprint, open_store, tokens_a_batch_of
from workers.engine.rows.calibration_rows import CalibrationRows
from workers.engine.run import Run

TOKENS_A_BATCH = 512
FEWEST_TOKENS = 16


def quantized_in_memory(run: Run, rows: CalibrationRows, recipe: Recipe) -> Quantized:
    """Quantize, with smaller batches as long as the accelerator's memory is too small, from the
    first on with those of the layers an earlier run finished.

    Raises OutOfMemory when a single row does not fit.
    """
    tokens = tokens_a_batch_of(run.spec) or TOKENS_A_BATCH
    while True:
        try:
            return _quantized(run, rows, recipe, tokens)
        except torch.OutOfMemoryError as error:
            smaller = tokens // 2
            if smaller < FEWEST_TOKENS:
                raise OutOfMemory(
                    f"The accelerator's memory is too small for a batch of {tokens:,} tokens of "
                    f"this model: use shorter rows, or an accelerator with more memory. {error}"
                ) from error
            message = (
                f"The accelerator's memory was too small for batches of {tokens:,} tokens: "
                f"starting again with {smaller:,}."
            )
            run.notice(message, Step.QUANTIZE, warning=True)
        run.model = None
        release_memory()
        tokens = smaller


def _quantized(run: Run, rows: CalibrationRows, recipe: Recipe, tokens: int) -> Quantized:
    spec = run.spec
    model = linearize(run.loaded_model())
    plan = plan_of(meta_model(spec.model), recipe)
    batches = pack_for(model, rows.rows, tokens)
    torch.manual_seed(spec.seed)
    store = LayerStore(spec.layers_directory, plan.scheme)
    current = fingerprint(spec, rows, run.held_out, model, tokens)
    finished = open_store(store, current, spec.resume, spec.layers_from, run.emit)
    dtypes = stored_dtypes(model, plan, spec.model)
    tokenizer = load_tokenizer(spec.model)
    blocks = blocks_of(read_config(spec.model))
    return quantize(
        model,
        tokenizer,
        plan,
        batches,
        dtypes,
        run.emit,
        store,
        finished,
        blocks,
        run.original.batches if run.original else (),
    )


def stored_dtypes(model: PreTrainedModel, plan: Plan, source: Path) -> dict[str, torch.dtype]:
    """The checkpoint's dtype of every weight that will change, by module name; float8 for one
    that is smoothed and stays in FP8 blocks, the model's own where such a weight is packed.

    Raises ModelRefused when a weight to quantize has no tensor of its own in the checkpoint.
    """
    shards = Shards(source)
    names = checkpoint_names(model, shards.tensors)
    found = {
        name: shards.tensors[names.source_weight(name)].dtype
        for name in names_of_smoothed(plan) | plan.modules.keys()
    }
    plain = meta_model(source).dtype
    packed = {name: plain for name in plan.modules if found[name] == FP8}
    return {**found, **packed}

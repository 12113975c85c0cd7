"""The engine on an accelerator: one layer of MiniMax-M2's real size, stock against ours.

``python -m bench.accelerator``. Hidden 3,072, 256 experts of 1,536, top-8, bfloat16, random
weights made on the device (7.2 GB); recipe experts-w4a16-g32. Wall-clock time with the device
waited for, the weights' packing included, and the device's peak memory. ``one by one`` is our
search with its experts run one after another instead of in grouped products; ``in RAM`` is ours
with the weights resting in RAM. Every run starts from the same weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from compressed_tensors.utils import patch_attr
from transformers import AutoModelForCausalLM, MiniMaxM2Config, PreTrainedModel

from app.recipes.schema import PRESETS
from tests.engine import tiny_models
from workers.engine.awq import experts_forward
from workers.engine.device import compute_device, release_memory
from workers.engine.models.loading import linearize
from workers.engine.plan.plan import plan_of
from workers.engine.quantization.layer_store import Fingerprint, LayerStore
from workers.engine.quantization.quantize import quantize
from workers.engine.rows.batches import PackedBatch, pack

RECIPE = PRESETS["experts-w4a16-g32"]
MODES: dict[str, dict[str, Any]] = {
    "no search": {"smooth": False},
    "fast": {"statistics": "routed", "search": "fast"},
    "routed": {"statistics": "routed"},
    "routed, in RAM": {"statistics": "routed"},
    "routed, one by one": {"statistics": "routed"},
    "exact": {},
    "stock routed": {"search": "stock", "statistics": "routed"},
    "stock": {"search": "stock"},
}


def model_of(experts: int) -> PreTrainedModel:
    """One layer like MiniMax-M2's, on the device."""
    config = MiniMaxM2Config(  # type: ignore[call-arg]
        vocab_size=tiny_models.VOCABULARY,
        hidden_size=3072,
        num_hidden_layers=1,
        num_attention_heads=48,
        num_key_value_heads=8,
        head_dim=128,
        rotary_dim=64,
        max_position_embeddings=4096,
        intermediate_size=1536,
        num_local_experts=experts,
        num_experts_per_tok=8,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    with torch.device(compute_device()):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
        linear: PreTrainedModel = linearize(model.train(False))
        return linear


def measure(mode: str, experts: int, batches: list[PackedBatch]) -> tuple[float, float]:
    """Seconds and the device's peak memory in GB of one run."""
    model = model_of(experts)
    if mode.endswith("in RAM"):
        model = model.to("cpu")  # type: ignore[arg-type]
    plan = plan_of(model, RECIPE.model_copy(update=MODES[mode]))
    dtypes = {name: torch.bfloat16 for name, _ in model.named_modules()}
    store = LayerStore(None, plan.scheme)
    store.open(Fingerprint(parts={}))
    tokenizer = tiny_models.tiny_tokenizer()
    grouped = experts_forward.has_grouped_products
    chosen = (lambda _: False) if mode.endswith("one by one") else grouped
    release_memory()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.synchronize()
    since = time.perf_counter()
    with patch_attr(experts_forward, "has_grouped_products", chosen):
        quantize(model, tokenizer, plan, batches, dtypes, lambda _: None, store)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - since
    return seconds, torch.cuda.max_memory_allocated() / 1e9


def main() -> None:
    """The accelerator's tables of docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--experts", type=int, default=256)
    parser.add_argument("--rows", type=int, nargs="*", default=[16])
    parser.add_argument("--modes", nargs="*", choices=list(MODES), default=list(MODES))
    chosen = parser.parse_args()
    torch.set_num_threads(8)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
    for rows in chosen.rows:
        batches = pack(tiny_models.rows_of(*[512] * rows), 512)
        print(f"\n### {chosen.experts} experts, {rows} × 512 tokens\n")
        print("| mode | s | peak GB |\n|---|---:|---:|", flush=True)
        for mode in chosen.modes:
            runs = [measure(mode, chosen.experts, batches) for _ in range(chosen.rounds)]
            seconds = statistics.median(run[0] for run in runs)
            print(f"| {mode} | {seconds:.1f} | {runs[-1][1]:.1f} |", flush=True)


if __name__ == "__main__":
    main()

"""Stock llmcompressor's AWQ against ours: CPU time and cached activations, side by side.

``make bench-engine`` or ``python -m bench.engine``; ``--scaling`` prints how the cost grows.
Layers like MiniMax-M2's (hidden 256, expert 128), 16 rows of 512 tokens, the recipe
experts-w4a16-g32, one thread, float32. Stock runs with statistics of all tokens and only its crash
without an accelerator mended. Every run starts from the same weights; ratios are of runs in one
process, one after the other, and the median over the rounds is given. Weights are compared bit for
bit with those of the stock runs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.utils import patch_attr
from transformers import MiniMaxM2Config, PreTrainedModel

from app.recipes.schema import PRESETS, Recipe
from tests.engine import tiny_models
from workers.engine.awq.experts_search import ExpertsSearch
from workers.engine.awq.modifier import TreeAWQModifier
from workers.engine.awq.reference import ToldAWQModifier
from workers.engine.models.loading import linearize, load_model
from workers.engine.plan.plan import plan_of
from workers.engine.quantization.layer_store import Fingerprint, LayerStore
from workers.engine.quantization.quantize import quantize
from workers.engine.rows.batches import PackedBatch, pack

ROWS, TOKENS, LONG = 16, 512, 2048
SHAPES = ((32, 4), (128, 8))
RECIPE = PRESETS["experts-w4a16-g32"]
MODES: dict[str, dict[str, Any]] = {
    "stock": {"search": "stock"},
    "stock routed": {"search": "stock", "statistics": "routed"},
    "exact": {},
    "routed": {"statistics": "routed"},
    "floor": {"statistics": "routed", "floor": 256},
    "fast": {"statistics": "routed", "search": "fast"},
    "no search": {"smooth": False},
}


@dataclass
class Measured:
    """One run: process CPU time, peak of cached activations, and the weights it left."""

    cpu_seconds: float
    cache_bytes: int
    weights: dict[str, torch.Tensor]


def config(experts: int, top_k: int, layers: int, intermediate: int) -> MiniMaxM2Config:
    """Layers like MiniMax-M2's, small."""
    return MiniMaxM2Config(  # type: ignore[call-arg]
        vocab_size=tiny_models.VOCABULARY,
        hidden_size=256,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        rotary_dim=32,
        max_position_embeddings=LONG,
        intermediate_size=intermediate,
        num_local_experts=experts,
        num_experts_per_tok=top_k,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
    )


def measure(
    model: PreTrainedModel, recipe: Recipe, batches: list[PackedBatch], layers: Path | None = None
) -> Measured:
    """Quantize a linearized model once; finished layers are kept in ``layers``, if it is given."""
    plan = plan_of(model, recipe)
    dtypes = {name: torch.float32 for name, _ in model.named_modules()}
    tokenizer = tiny_models.tiny_tokenizer()
    store = LayerStore(layers, plan.scheme)
    store.open(Fingerprint(parts={}))
    with watched_caches() as peak:
        since = time.process_time()
        quantize(model, tokenizer, plan, batches, dtypes, lambda _: None, store)
        cpu = time.process_time() - since
    return Measured(cpu, peak[0], {name: p.detach() for name, p in model.named_parameters()})


@contextmanager
def watched_caches() -> Iterator[list[int]]:
    """The most bytes that AWQ keeps of activations at the end of a layer's calibration pass:
    parents' inputs, sums, and for ours the Gram matrices of the experts searched together."""
    peak = [0]

    def watching(modifier: type[Any]) -> Any:
        plain = modifier.on_sequential_epoch_end

        def measured(self: Any, *args: Any, **kwargs: Any) -> Any:
            peak[0] = max(peak[0], cached_bytes(self))
            return plain(self, *args, **kwargs)

        return measured

    ours, stock = watching(TreeAWQModifier), watching(ToldAWQModifier)
    with (
        patch_attr(TreeAWQModifier, "on_sequential_epoch_end", ours),
        patch_attr(ToldAWQModifier, "on_sequential_epoch_end", stock),
    ):
        yield peak


def cached_bytes(modifier: Any) -> int:
    """Storages of activations a modifier holds, each once."""
    storages: dict[int, int] = {}
    for cache in modifier._parent_args_cache.values():
        for batch in cache:
            for value in batch.values():
                if isinstance(value, torch.Tensor) and value.is_floating_point():
                    storage = value.untyped_storage()
                    storages[storage.data_ptr()] = storage.nbytes()
    sums = [each[0].nbytes for each in modifier._smooth_activation_stats.values()]
    grams = [each.gram.nbytes for each in getattr(modifier, "_statistics", {}).values()]
    together = [_gram_bytes(search) for search in getattr(modifier, "_experts", [])]
    return int(sum(storages.values()) + sum(sums) + sum(grams) + max(together, default=0))


def _gram_bytes(search: ExpertsSearch) -> int:
    columns = {n: m.parent.get_parameter("weight").shape[1] for n, m in search.members.items()}
    return max(sum(4 * columns[n] ** 2 for n in group) for group in search.groups())


def bench(experts: int, top_k: int, layers: int, rounds: int, modes: list[str]) -> None:
    """Print one table."""
    with tempfile.TemporaryDirectory() as folder:
        saved = tiny_models.save(
            tiny_models.tiny_model(config(experts, top_k, layers, 128)), Path(folder)
        )
        batches = pack(tiny_models.rows_of(*[TOKENS] * ROWS), TOKENS)
        runs: dict[str, list[Measured]] = {mode: [] for mode in modes}
        for _ in range(rounds):
            for mode in modes:
                model = linearize(load_model(saved))
                recipe = RECIPE.model_copy(update=MODES[mode])
                runs[mode].append(measure(model, recipe, batches))
    show(runs, f"{experts} experts, top-{top_k}, {layers} layers, {ROWS} × {TOKENS} tokens")


def show(runs: dict[str, list[Measured]], title: str) -> None:
    """A table in Markdown; ratios are medians over rounds of stock ÷ mode in that round."""
    print(f"\n### {title}\n")
    print("| mode | CPU s | stock ÷ mode | cache MB | stock ÷ mode | weights equal to |")
    print("|---|---:|---:|---:|---:|---|")
    for mode, found in runs.items():
        cpu = statistics.median(run.cpu_seconds for run in found)
        ratio = statistics.median(
            stock.cpu_seconds / run.cpu_seconds
            for stock, run in zip(runs["stock"], found, strict=True)
        )
        cache, stock_cache = found[0].cache_bytes, runs["stock"][0].cache_bytes
        share = f"{stock_cache / cache:.1f}" if cache else "none kept"
        figures = f"{cpu:.2f} | {ratio:.1f} | {cache / 1e6:.1f} | {share}"
        print(f"| {mode} | {figures} | {equal_to(mode, runs)} |", flush=True)


def equal_to(mode: str, runs: dict[str, list[Measured]]) -> str:
    """The stock runs whose weights are those of this mode, bit for bit."""
    mine = runs[mode][0].weights
    names = [
        other
        for other in ("stock", "stock routed")
        if other != mode and other in runs and _equal(mine, runs[other][0].weights)
    ]
    return ", ".join(names) or "none"


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    names = [name for name in one if not name.endswith(("_scale", "_zero_point"))]
    return all(torch.equal(one[name], other[name]) for name in names)


def scaling(rounds: int) -> None:
    """Print how CPU time grows with experts at the same active parameters, and with tokens."""
    print("\n### Experts at the same active parameters (top-4), 1 layer, CPU s\n")
    print("| experts | routed, 16 × 512 tokens | fast | routed, 16 × 2,048 tokens | fast |")
    print("|---:|---:|---:|---:|---:|")
    for experts in (8, 32, 128):
        found = [
            _median(experts, 4, ROWS, mode, rounds, tokens)
            for tokens in (TOKENS, LONG)
            for mode in ("routed", "fast")
        ]
        print(f"| {experts} | {' | '.join(f'{seconds:.2f}' for seconds in found)} |", flush=True)
    print("\n### Tokens, 32 experts, top-4, 1 layer\n")
    print("| tokens | exact, CPU s | routed, CPU s |\n|---:|---:|---:|")
    for rows in (8, 16, 32, 64):
        found = [_median(32, 4, rows, mode, rounds) for mode in ("exact", "routed")]
        print(f"| {rows * TOKENS:,} | {found[0]:.2f} | {found[1]:.2f} |", flush=True)
    print("\n### Keeping finished layers, 32 experts, top-4, 2 layers, 16 × 512 tokens, exact\n")
    print("| | CPU s |\n|---|---:|")
    with tempfile.TemporaryDirectory() as folder:
        pairs = [
            (_once(32, 4, 2, ROWS, "exact"), _once(32, 4, 2, ROWS, "exact", Path(folder) / str(n)))
            for n in range(max(3, rounds))
        ]
    for name, values in zip(("in memory", "on disk"), zip(*pairs, strict=True), strict=True):
        print(f"| {name} | {statistics.median(values):.2f} |")
    print(f"| overhead | {100 * (statistics.median(b / a for a, b in pairs) - 1):.1f} % |")


def _median(
    experts: int, top_k: int, rows: int, mode: str, rounds: int, tokens: int = TOKENS
) -> float:
    return statistics.median(
        _once(experts, top_k, 1, rows, mode, tokens=tokens) for _ in range(rounds)
    )


def _once(
    experts: int,
    top_k: int,
    layers: int,
    rows: int,
    mode: str,
    keep: Path | None = None,
    tokens: int = TOKENS,
) -> float:
    with tempfile.TemporaryDirectory() as folder:
        saved = tiny_models.save(
            tiny_models.tiny_model(config(experts, top_k, layers, 128)), Path(folder)
        )
        model = linearize(load_model(saved))
    batches = pack(tiny_models.rows_of(*[tokens] * rows), tokens)
    return measure(model, RECIPE.model_copy(update=MODES[mode]), batches, keep).cpu_seconds


def main() -> None:
    """The tables of docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--modes", nargs="*", choices=list(MODES), default=list(MODES))
    parser.add_argument("--shapes", nargs="*", default=[f"{e}x{k}" for e, k in SHAPES])
    parser.add_argument("--scaling", action="store_true", help="only how the cost grows")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.scaling:
        scaling(chosen.rounds)
        return
    for shape in chosen.shapes:
        experts, top_k = map(int, shape.split("x"))
        modes = ["stock", *(mode for mode in chosen.modes if mode != "stock")]
        bench(experts, top_k, chosen.layers, chosen.rounds, modes)


if __name__ == "__main__":
    main()

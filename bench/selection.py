"""Chosen rows against random ones under the same budget and quotas, and how fast they are chosen.

``make bench-selection`` or ``python -m bench.selection``. The pool is the starter corpus in the
starter set's composition, profiled once on the demo model and kept beside the results. Each seed
draws half of the pool; of that half 60,000 tokens are chosen at random, for the worst-fed experts,
and by distance in activation space, and the demo model is quantized with each (routed statistics,
fast search) and compared with the original on the same held-out rows. Beside them stands what no
choice of rows could give more than (``bench.ceiling``). The table gives means over the seeds with
95 % intervals (Student's t) and the paired difference to random rows.

``--uneven`` is the same without KL for the demo model with its routers' correction biases set
to zero, which routes unevenly: the published one was trained to be even, so that no choice can
give its worst-fed experts much more than random rows do.

``--scale`` chooses from 100,000 synthetic rows × 15,872 cells and says seconds and memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.base_models.service import DEMO_MODEL
from app.calibration.building import build_set
from app.calibration.held_out import held_out_for
from app.calibration.service import index_for
from app.calibration.spec import SetSpec
from app.calibration.starter import software_engineer
from app.coverage.choosing import Aim, Chosen, Wish, choose_rows, quotas_of, worst_fed
from app.coverage.objectives import ExpertFloors
from app.coverage.pools import pool_of
from app.coverage.profile import Profile
from app.coverage.selection import Purse, choose
from app.recipes.schema import PRESETS
from app.settings import Settings
from bench.ceiling import ceiling
from bench.quality import interval
from workers.engine.models.loading import limits_of, linearize, load_tokenizer
from workers.engine.passes.evaluation import compare
from workers.engine.passes.forward import pack_for
from workers.engine.passes.observation import Observed, observe
from workers.engine.passes.routing import count_routing, write_coverage
from workers.engine.plan.plan import plan_of
from workers.engine.quantization.quantize import quantize
from workers.engine.quantizing import stored_dtypes
from workers.engine.rows.calibration_rows import CalibrationRows, read_rows
from workers.engine.run import load_for_computing

BUDGET = 60_000
RECIPE = PRESETS["experts-w4a16-g32"].model_copy(update={"statistics": "routed", "search": "fast"})
RANDOM, EXPERTS, ACTIVATIONS = "random rows", "for the worst-fed experts", "by activations"
# What no choice can pass: under the quotas, and under the budget alone.
BOUND, BOUND_FREE = "at most, by any choice", "at most, without quotas"
FIGURES = ("worst5", "worst1", "empty", "kl")
TITLES = {
    "worst5": "tokens of the worst 5 % of cells",
    "worst1": "tokens of the worst 1 % of cells",
    "empty": "cells without a token",
    "kl": "held-out KL, nats a token",
}
Found = dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True)
class PoolOfRows:
    """A pool: its composition, its rows as the engine reads them, its profile."""

    spec: SetSpec
    rows: CalibrationRows
    profile: Profile


def pool(folder: Path, balanced: bool) -> PoolOfRows:
    """The pool and its profile, taken at the first call."""
    settings = Settings(data_dir=folder)
    starter = software_engineer()
    spec = pool_of(starter, index_for(settings, starter, DEMO_MODEL), times=1000)
    built = build_set(
        spec, tokenizer_dir=DEMO_MODEL, sets_dir=folder / "sets", index_dir=settings.index_dir
    )
    model = load_for_computing(DEMO_MODEL)
    rows = read_rows(built.directory, load_tokenizer(DEMO_MODEL), limits_of(model))
    file = folder / f"coverage-{'balanced' if balanced else 'uneven'}.npz"
    if not file.is_file():
        if not balanced:
            without_correction(model)
        routing = count_routing(model, pack_for(model, rows.rows), len(rows.rows), tell)
        write_coverage(file, routing, rows, "demo")
    return PoolOfRows(starter, rows, Profile.load(file))


def without_correction(model: torch.nn.Module) -> None:
    """Set the routers' correction biases to zero."""
    for name, values in (*model.named_parameters(), *model.named_buffers()):
        if "correction_bias" in name:
            values.data.zero_()


def half_of(whole: PoolOfRows, seed: int) -> PoolOfRows:
    """Half of the pool's rows, drawn by a seed."""
    count = len(whole.rows.rows)
    keep = np.zeros(count, dtype=np.bool_)
    keep[np.random.default_rng(seed).choice(count, count // 2, replace=False)] = True
    rows = tuple(row for row, kept in zip(whole.rows.rows, keep, strict=True) if kept)
    return PoolOfRows(
        whole.spec, CalibrationRows(f"half {seed}", rows), whole.profile.rows_where(keep)
    )


def chosen_ways(part: PoolOfRows, seed: int) -> dict[str, tuple[Chosen, np.ndarray]]:
    """The rows each way takes."""
    by_aim: dict[Aim, Chosen] = {
        aim: choose_rows(part.profile, part.spec, Wish(BUDGET, aim=aim, seed=seed))
        for aim in ("experts", "activations")
    }
    experts, activations = by_aim["experts"], by_aim["activations"]
    return {
        RANDOM: (experts, experts.random_rows),
        EXPERTS: (experts, experts.rows),
        ACTIVATIONS: (activations, activations.rows),
    }


def bounds(part: PoolOfRows) -> dict[str, dict[str, float]]:
    """What the worst-fed cells could get at most."""
    profile = part.profile
    groups, of_row = quotas_of(profile, part.spec, BUDGET)
    quotas = np.array([group.quota for group in groups], dtype=np.int64)
    one, whole = np.zeros(len(of_row), dtype=np.intp), np.array([BUDGET])
    purses = {
        BOUND: Purse(profile.tokens, of_row, quotas, np.zeros_like(quotas), BUDGET),
        BOUND_FREE: Purse(profile.tokens, one, whole, np.zeros_like(whole), BUDGET),
    }
    counts = profile.row_counts
    return {
        way: {"worst5": ceiling(counts, purse, 0.05), "worst1": ceiling(counts, purse, 0.01)}
        for way, purse in purses.items()
    }


def kl_with(rows: Iterable[Any], held_out: CalibrationRows, original: Observed) -> float:
    """Mean KL of the demo model quantized on some rows."""
    model = linearize(load_for_computing(DEMO_MODEL))
    plan = plan_of(model, RECIPE)
    dtypes = stored_dtypes(model, plan, DEMO_MODEL)
    torch.manual_seed(0)
    batches = pack_for(model, list(rows))
    quantize(model, load_tokenizer(DEMO_MODEL), plan, batches, dtypes, lambda _: None)
    return compare(original, observe(model, original.batches), held_out).kl_mean


def held_out_rows(folder: Path) -> tuple[CalibrationRows, Observed]:
    """The held-out rows of the starter set, and what the original makes of them."""
    starter = software_engineer()
    settings = Settings(data_dir=folder)
    spec = held_out_for(starter, index_for(settings, starter, DEMO_MODEL))
    assert spec is not None
    built = build_set(
        spec, tokenizer_dir=DEMO_MODEL, sets_dir=folder / "sets", index_dir=settings.index_dir
    )
    model = load_for_computing(DEMO_MODEL)
    rows = read_rows(built.directory, load_tokenizer(DEMO_MODEL), limits_of(model))
    return rows, observe(model, pack_for(model, rows.rows))


def measure(folder: Path, seeds: Iterable[int], balanced: bool, with_kl: bool) -> Found:
    """Figures by way and seed; kept in the folder as they come, and not measured twice."""
    results = folder / f"figures-{'balanced' if balanced else 'uneven'}.json"
    found: Found = json.loads(results.read_text()) if results.is_file() else {}
    whole = pool(folder, balanced)
    held_out, original = held_out_rows(folder) if with_kl else (None, None)
    for seed in seeds:
        part = half_of(whole, seed)
        for way, most in bounds(part).items():
            found.setdefault(way, {})[str(seed)] = most
        for way, (chosen, rows) in chosen_ways(part, seed).items():
            figures = found.setdefault(way, {}).setdefault(str(seed), {})
            fed = chosen.profile.fed_by(rows)
            figures["worst5"], figures["worst1"] = worst_fed(fed, 0.05), worst_fed(fed, 0.01)
            figures["empty"] = float((fed == 0).sum())
            figures["tokens"] = float(chosen.profile.tokens[rows].sum())
            if held_out is not None and original is not None and "kl" not in figures:
                taken = [part.rows.rows[row] for row in sorted(rows.tolist())]
                figures["kl"] = kl_with(taken, held_out, original)
            results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            print(seed, way, figures, file=sys.stderr, flush=True)
    return found


def table(found: Found) -> list[str]:
    """The table in Markdown."""
    lines = [
        "| figure | rows | seeds | mean | 95 % interval | minus random | 95 % interval |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for figure in FIGURES:
        for way, by_seed in found.items():
            values = {seed: each[figure] for seed, each in by_seed.items() if figure in each}
            if not values:
                continue
            mean, half = interval(list(values.values()))
            beside = "| | "
            if way != RANDOM:
                random = {seed: each[figure] for seed, each in found[RANDOM].items()}
                shift, width = interval([values[seed] - random[seed] for seed in values])
                low, high = shown(shift - width, figure), shown(shift + width, figure)
                beside = f"| {shown(shift, figure, '+')} | {low} to {high} "
            spread = f"{shown(mean - half, figure)} to {shown(mean + half, figure)}"
            lines.append(
                f"| {TITLES[figure]} | {way} | {len(values)} | {shown(mean, figure)} "
                f"| {spread} {beside}|"
            )
    return lines


def shown(value: float, figure: str, sign: str = "") -> str:
    """A figure in its own precision."""
    return f"{value:{sign},.6f}" if figure == "kl" else f"{value:{sign},.1f}"


def tell(done: int, total: int) -> None:
    """Progress on stderr."""
    if done % 200 == 0 or done == total:
        print(f"{done} of {total} batches", file=sys.stderr, flush=True)


def scale(rows: int, layers: int, experts: int, budget: int, floor: int) -> str:
    """Choose from a synthetic pool of rows of 64 to 512 tokens, top-8, on a hundred topics with
    experts of their own, each topic with an equal quota."""
    chance = np.random.default_rng(0)
    topics, top_k = 100, 8
    taste = 1.5 * chance.standard_normal((1, layers, experts), dtype=np.float32)
    taste = np.exp(taste + chance.standard_normal((topics, layers, experts), dtype=np.float32))
    taste = (taste / taste.sum(axis=2, keepdims=True)).reshape(topics, -1)
    tokens = chance.integers(64, 513, rows)
    topic = chance.integers(0, topics, rows)
    counts = np.empty((rows, layers * experts), dtype=np.uint16)
    for start in range(0, rows, 64):
        part = slice(start, start + 64)
        routed = taste[topic[part]] * (tokens[part, None] * top_k).astype(np.float32)
        counts[part] = np.minimum(routed + chance.random(routed.shape, dtype=np.float32), floor)
    quotas = np.full(topics, budget // topics, dtype=np.int64)
    of_slice = np.zeros(topics, dtype=np.intp)
    purse = Purse(tokens, topic.astype(np.intp), quotas, of_slice, budget)
    wall, cpu = time.perf_counter(), time.process_time()
    found = choose(ExpertFloors(counts, floor), purse, chance.permutation(rows))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return (
        f"| {rows:,} × {layers * experts:,} | {budget:,} | {floor:,} | {len(found.rows):,} "
        f"| {wall:.1f} | {cpu:.1f} | {memory:.2f} |"
    )


def main() -> None:
    """The tables of docs/selection.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(10)))
    parser.add_argument("--folder", type=Path, default=Path(".selection"))
    parser.add_argument("--no-kl", action="store_true")
    parser.add_argument("--uneven", action="store_true")
    parser.add_argument("--scale", action="store_true")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--floor", type=int, nargs="*", default=[1024, 31_250])
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.scale:
        print("| pool | budget | floor | rows chosen | seconds | CPU seconds | peak GB |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        for floor in given.floor:
            print(scale(given.rows, 62, 256, 1_000_000, floor), flush=True)
        return
    given.folder.mkdir(parents=True, exist_ok=True)
    with_kl = not (given.uneven or given.no_kl)
    found = measure(given.folder, given.seeds, not given.uneven, with_kl)
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()

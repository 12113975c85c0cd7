"""Held-out KL of the demo model by statistics and search, over five calibration sets.

``make bench-quality`` or ``python -m bench.quality``. Each seed composes the starter set anew (its
rows are drawn by that seed), at 30,000 tokens; every variant quantizes the demo model with it and
is compared with the original on the same held-out rows. The table gives the mean KL over the
seeds with a 95 % interval (Student's t over the seeds), and the paired difference to ``stock``,
which says what is chance: its interval holds 0 or it does not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from app.base_models.service import DEMO_MODEL
from app.calibration.building import build_set
from app.calibration.held_out import held_out_for
from app.calibration.service import require_buildable
from app.calibration.spec import SetSpec
from app.calibration.starter import software_engineer
from app.recipes.schema import PRESETS
from app.settings import Settings
from workers.engine.models.loading import limits_of, linearize, load_tokenizer
from workers.engine.passes.evaluation import compare
from workers.engine.passes.forward import pack_for
from workers.engine.passes.observation import Observed, observe
from workers.engine.plan.mappings import TreeMapping
from workers.engine.plan.plan import Plan, plan_of
from workers.engine.quantization.quantize import quantize
from workers.engine.quantizing import stored_dtypes
from workers.engine.rows.calibration_rows import CalibrationRows, read_rows
from workers.engine.run import load_for_computing

BUDGET = 30_000
RECIPE = PRESETS["experts-w4a16-g32"]
# Student's t for a two-sided 95 % interval, by degrees of freedom.
STUDENT_95 = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    6: 2.447,
    7: 2.365,
    8: 2.306,
    9: 2.262,
}


@dataclass(frozen=True)
class Variant:
    """A way to quantize: changes to the recipe, English rows only, or no router in the mapping."""

    name: str
    recipe: dict[str, Any]
    english_only: bool = False
    router: bool = True


VARIANTS = (
    Variant("round to nearest", {"smooth": False}),
    Variant("stock, the seed's mapping without the router", {"search": "stock"}, router=False),
    Variant("stock, router first", {"search": "stock"}),
    Variant("exact, all tokens", {}),
    Variant("routed", {"statistics": "routed"}),
    Variant("routed, floor of 2,048", {"statistics": "routed", "floor": 2_048}),
    Variant("fast, all tokens", {"search": "fast"}),
    Variant("fast, routed", {"statistics": "routed", "search": "fast"}),
    Variant("routed, English rows only", {"statistics": "routed"}, english_only=True),
)
REFERENCE = "stock, router first"


def plan_for(variant: Variant, model: Any) -> Plan:
    """The plan of a variant on the linearized model."""
    plan = plan_of(model, RECIPE.model_copy(update=variant.recipe))
    if variant.router:
        return plan
    mappings = [_without_router(mapping) for mapping in plan.mappings]
    return Plan(plan.recipe, plan.modules, mappings)


def _without_router(mapping: TreeMapping) -> TreeMapping:
    balance = tuple(name for name in mapping.balance if ".experts." in name)
    return TreeMapping(mapping.layer, mapping.smooth, balance, mapping.parent, mapping.token_wise)


def kl_of(
    variant: Variant, rows: CalibrationRows, held_out: CalibrationRows, original: Observed
) -> float:
    """The mean KL in nats a token of the demo model, quantized by a variant."""
    tokenizer = load_tokenizer(DEMO_MODEL)
    chosen = rows.rows
    if variant.english_only:
        chosen = tuple(row for row in chosen if row.facets.get("spoken_language") == "en")
    model = linearize(load_for_computing(DEMO_MODEL))
    plan = plan_for(variant, model)
    dtypes = stored_dtypes(model, plan, DEMO_MODEL)
    torch.manual_seed(0)
    quantize(model, tokenizer, plan, pack_for(model, chosen), dtypes, lambda _: None)
    return compare(original, observe(model, original.batches), held_out).kl_mean


def measure(
    seeds: Iterable[int], variants: Iterable[Variant], results: Path
) -> dict[str, dict[int, float]]:
    """KL by variant and seed; kept in ``results`` as they come, and not measured twice."""
    found: dict[str, dict[int, float]] = {}
    if results.is_file():
        found = {
            name: {int(s): kl for s, kl in by.items()}
            for name, by in json.loads(results.read_text()).items()
        }
    tokenizer = load_tokenizer(DEMO_MODEL)
    base = load_for_computing(DEMO_MODEL)
    variants = list(variants)
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            rows, held_out = sets_of(seed, Path(folder), tokenizer, base)
            original = observe(base, pack_for(base, held_out.rows))
            for variant in variants:
                if seed in found.setdefault(variant.name, {}):
                    continue
                since = time.perf_counter()
                found[variant.name][seed] = kl_of(variant, rows, held_out, original)
                results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
                said = f"{seed} {variant.name}: {found[variant.name][seed]:.6f}"
                print(f"{said} in {time.perf_counter() - since:.0f} s", file=sys.stderr, flush=True)
    return found


def sets_of(
    seed: int, folder: Path, tokenizer: PreTrainedTokenizerBase, base: Any
) -> tuple[CalibrationRows, CalibrationRows]:
    """The calibration rows of a seed, and the held-out rows, which are the same for every seed."""
    settings = Settings(data_dir=folder)
    limits = limits_of(base)
    spec = software_engineer().model_copy(update={"seed": seed, "token_budget": BUDGET})
    fixed = software_engineer().model_copy(update={"token_budget": BUDGET})
    held_out = held_out_for(fixed, require_buildable(settings, fixed, DEMO_MODEL))

    assert held_out is not None

    def built(each: SetSpec) -> CalibrationRows:
        done = build_set(each, tokenizer_dir=DEMO_MODEL, sets_dir=folder, progress=lambda *_: None)
        return read_rows(done.directory, tokenizer, limits)

    return built(spec), built(held_out)


def table(found: dict[str, dict[int, float]]) -> list[str]:
    """The table in Markdown."""
    lines = [
        "| variant | seeds | mean KL, nats a token | 95 % interval | minus stock "
        "| 95 % interval | beyond chance |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for name, by_seed in found.items():
        mean, half = interval(list(by_seed.values()))
        pairs = [by_seed[s] - found[REFERENCE][s] for s in by_seed if s in found.get(REFERENCE, {})]
        if name == REFERENCE or len(pairs) < 2:
            beside = "| | | "
        else:
            shift, width = interval(pairs)
            told = "no" if abs(shift) <= width else ("better" if shift < 0 else "worse")
            beside = f"| {shift:+.6f} | {shift - width:+.6f} to {shift + width:+.6f} | {told} "
        low, high = mean - half, mean + half
        said = f"| {name} | {len(by_seed)} | {mean:.6f} | {low:.6f} to {high:.6f} "
        lines.append(f"{said}{beside}|")
    return lines


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half of the 95 % interval by Student's t."""
    if len(values) < 2:
        return values[0], float("nan")
    error = statistics.stdev(values) / len(values) ** 0.5
    return statistics.mean(values), STUDENT_95[len(values) - 1] * error


def main() -> None:
    """The table of docs/quality.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3, 4, 5])
    parser.add_argument("--variants", nargs="*", default=[v.name for v in VARIANTS])
    parser.add_argument("--results", type=Path, default=Path(".quality.json"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    variants = [v for v in VARIANTS if v.name in chosen.variants]
    print("\n".join(table(measure(chosen.seeds, variants, chosen.results))))


if __name__ == "__main__":
    main()

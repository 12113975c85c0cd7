"""What counting costs: a forward pass with the coverage hooks against a bare one.

``python -m bench.coverage``. Passes alternate, so that a busy machine slows both; the figure is the
median over rounds of the ratio of CPU seconds of neighbouring passes. Counting is all that the
profile step does with each batch: tokens, router weight, pairs of experts, the rows' mean states.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import MiniMaxM2Config, PreTrainedModel
from transformers.models.minimax_m2.modeling_minimax_m2 import MiniMaxM2ForCausalLM

from app.base_models.service import DEMO_MODEL
from workers.engine.passes.forward import last_hidden
from workers.engine.passes.routing import count_routing
from workers.engine.rows.batches import pack
from workers.engine.rows.calibration_rows import CalibrationRow
from workers.engine.run import load_for_computing

ROWS = 32


def many_experts() -> PreTrainedModel:
    """Two layers of 256 experts, top-8, hidden 512: the shape of MiniMax-M2, a sixth as wide."""
    torch.manual_seed(0)
    config = MiniMaxM2Config(
        vocab_size=1024, hidden_size=512, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=8, num_key_value_heads=2, head_dim=64, num_local_experts=256,
        num_experts_per_tok=8,
    )  # fmt: skip
    model: PreTrainedModel = MiniMaxM2ForCausalLM(config)  # type: ignore[no-untyped-call]
    model.train(False)
    return model


def cost(model: PreTrainedModel, rounds: int) -> tuple[float, float]:
    """CPU seconds of a bare pass over ROWS × 512 tokens, and the median of counted over bare."""
    chance = np.random.default_rng(0)
    rows = [
        CalibrationRow(str(at), chance.integers(0, 1000, 512).astype(np.int32), {})
        for at in range(ROWS)
    ]
    batches = pack(rows, 512)

    def bare() -> None:
        for _ in last_hidden(model, batches):
            pass

    def counted() -> None:
        count_routing(model, batches, len(rows))

    bare()
    pairs = [(cpu_seconds(bare), cpu_seconds(counted)) for _ in range(rounds)]
    ratio = statistics.median(after / before for before, after in pairs)
    return statistics.median(before for before, _ in pairs), ratio


def cpu_seconds(work: Callable[[], None]) -> float:
    """CPU seconds of this process that some work takes."""
    before = time.process_time()
    work()
    return time.process_time() - before


def main() -> None:
    """The table of docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print("| model | bare pass, CPU s | with counting |")
    print("|---|---:|---:|")
    for name, model in (
        ("demo, 6 layers of 32 experts, top-4", load_for_computing(DEMO_MODEL)),
        ("2 layers of 256 experts, top-8, hidden 512", many_experts()),
    ):
        seconds, ratio = cost(model, rounds)
        print(f"| {name} | {seconds:.2f} | {ratio - 1:+.1%} |", flush=True)


if __name__ == "__main__":
    main()

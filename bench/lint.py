"""How long a recipe takes to be told against MiniMax-M2's real size, while a person types.

``python -m bench.lint``: 62 layers of 256 experts and their attention, 47,864 weights; CPU time of
20 calls, each with another pattern, the median and the slowest.
"""

from __future__ import annotations

import statistics
import time

from app.recipes.files import dump_recipe
from app.recipes.lint import Weights, lint_text
from app.recipes.schema import PRESETS

CALLS = 20


def minimax_m2() -> Weights:
    """The weights of MiniMax-M2, by name and shape."""
    shapes: dict[str, tuple[int, int]] = {}
    for layer in range(62):
        prefix = f"model.layers.{layer}"
        for expert in range(256):
            for name in ("gate_proj", "up_proj"):
                shapes[f"{prefix}.mlp.experts.{expert}.{name}"] = (1536, 3072)
            shapes[f"{prefix}.mlp.experts.{expert}.down_proj"] = (3072, 1536)
        for name, rows, columns in (
            ("q", 6144, 3072),
            ("k", 1024, 3072),
            ("v", 1024, 3072),
            ("o", 3072, 6144),
        ):
            shapes[f"{prefix}.self_attn.{name}_proj"] = (rows, columns)
    return Weights("MiniMax-M2", shapes, frozenset(), dict.fromkeys(shapes, 2.0), 457_000_000_000)


def main() -> None:
    """Print the median and the slowest call for each preset."""
    weights = minimax_m2()
    for name, recipe in PRESETS.items():
        seconds = []
        for call in range(CALLS):
            text = dump_recipe(recipe.model_copy(update={"ignore": (rf"^lm_head{call}$",)}))
            since = time.process_time()
            told = lint_text(text, "r", weights)
            seconds.append(time.process_time() - since)
        middle, slowest = 1e3 * statistics.median(seconds), 1e3 * max(seconds)
        print(
            f"{name}: {told.quantized:,} weights, median {middle:.0f} ms, slowest {slowest:.0f} ms"
        )


if __name__ == "__main__":
    main()

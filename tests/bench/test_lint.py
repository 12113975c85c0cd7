"""The bench of the lint, on the names and shapes it has for MiniMax-M2."""

from __future__ import annotations

from app.recipes.files import dump_recipe
from app.recipes.lint import lint_text
from app.recipes.schema import PRESETS
from bench.lint import minimax_m2


def test_the_benchs_weights_are_minimax_m2s() -> None:
    weights = minimax_m2()
    told = lint_text(dump_recipe(PRESETS["experts-w4a16-g32"]), "r", weights)
    assert (told.quantized, told.weights) == (62 * 256 * 3, 62 * (256 * 3 + 4))
    assert not told.errors
    assert 0.25 < told.bytes_after / weights.size_bytes < 0.35

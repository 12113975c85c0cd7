"""What transformers cannot reload is not compared with its original."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import CheckpointRefused
from app.recipes.schema import ATTENTION, EXPERTS, Group, Recipe
from tests.engine.made_checkpoints import quantized, recipe_for
from workers.engine.checkpoints.export import export
from workers.engine.checkpoints.verification import refuse_not_reloadable, verify


def divided(source: Path, place: Path) -> Path:
    """A checkpoint whose second layer's experts have more bits than the first's."""
    pattern = r".*\.layers\.{}\.mlp\.experts\.\d+\.(gate_proj|up_proj|down_proj)$"
    groups = tuple(
        Group(name=name, targets=(pattern.format(layer),), group_size=16, bits=bits)
        for name, layer, bits in (("few", 0, 4), ("many", 1, 8))
    )
    model, done = quantized(source, Recipe(name="r", grid=3, groups=groups))
    return export(model, done, source, "s", place).directory


def test_what_transformers_would_load_wrongly_verifies_and_is_not_evaluated(
    saved: Callable[[str], Path], tmp_path: Path
) -> None:
    """transformers unpacks all experts by one scheme, and looks for packed ones alone."""
    source = saved("mixtral")
    model, done = quantized(source, recipe_for(ATTENTION))
    attention = export(model, done, source, "s", tmp_path / "attention").directory
    mixed = divided(source, tmp_path / "mixed")
    for checkpoint, reason in ((attention, "not packed"), (mixed, "more than one scheme")):
        found = verify(checkpoint, source)
        assert (found.ok, found.problems) == (True, [])
        with pytest.raises(CheckpointRefused, match=reason):
            refuse_not_reloadable(checkpoint, source)


@pytest.mark.parametrize("name", ["mixtral", "granite_moe", "qwen3"])
def test_what_transformers_loads_right_may_be_evaluated(
    saved: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    source = saved(name)
    model, done = quantized(source, recipe_for(EXPERTS if name == "mixtral" else ATTENTION))
    checkpoint = export(model, done, source, "s", tmp_path / "checkpoint").directory
    refuse_not_reloadable(checkpoint, source)
    refuse_not_reloadable(source, source)

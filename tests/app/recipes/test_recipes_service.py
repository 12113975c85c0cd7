"""What of a model a recipe may speak of."""

from __future__ import annotations

from pathlib import Path

from app.recipes.service import weights_of
from tests.app.base_models.checkpoints import MINIMAX, minimax_shapes, write_model


def test_a_key_projection_of_a_routers_shape_is_no_router(tmp_path: Path) -> None:
    shapes = {**minimax_shapes(), "model.layers.0.self_attn.k_proj.weight": (4, 48)}
    model = write_model(tmp_path / "mini", MINIMAX, shapes)
    found = weights_of(str(model), "fingerprint", "mini").shapes
    assert found["model.layers.0.self_attn.k_proj"] == (4, 48)
    assert not [name for name in found if name.endswith(".gate")]

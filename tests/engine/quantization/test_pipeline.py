"""What a run tells of how far it is."""

from __future__ import annotations

from typing import Any, cast

import pytest

from app.jobs.spec import LayerReport
from workers.engine.quantization import pipeline
from workers.engine.quantization.pipeline import Layerwise


@pytest.mark.parametrize(("spent", "left"), [(0.0, 40.0), (15.0, 25.0), (60.0, 0.0)])
def test_what_the_layer_at_work_took_is_no_longer_to_come(
    monkeypatch: pytest.MonkeyPatch, spent: float, left: float
) -> None:
    since = 1_000.0
    monkeypatch.setattr(pipeline.time, "perf_counter", lambda: since + spent)
    told: list[Any] = []
    nothing = cast(Any, None)
    run = Layerwise(nothing, nothing, nothing, nothing, told.append, every_token=False, layers=4)
    run.reports = [LayerReport(layer=n, relative_mse=0.1, sqnr_db=10) for n in range(2)]
    run._computed, run._since = [10.0, 30.0], since
    run.progress(2, 1, 8)
    assert (told[0].done, told[0].total, told[0].eta_seconds) == (2, 4, left)

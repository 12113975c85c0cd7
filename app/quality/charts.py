"""The chart of a job's errors, as plotly reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.jobs.spec import LayerReport

ERROR_COLOUR = "#3b6ea8"
SQNR_COLOUR = "#d08a2e"


def error_by_layer(layers: Sequence[LayerReport]) -> dict[str, Any]:
    """Relative MSE of each layer's quantized weights as bars, SQNR in dB as a line above it.

    Two panels one above the other with the layers in common, so that no axis has two meanings.
    """
    numbers = [layer.layer for layer in layers]
    return {
        "data": [
            {
                "type": "bar",
                "name": "Relative MSE",
                "x": numbers,
                "y": [layer.relative_mse for layer in layers],
                "marker": {"color": ERROR_COLOUR},
                "hovertemplate": "layer %{x}<br>relative MSE %{y:.4g}<extra></extra>",
            },
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "SQNR",
                "x": numbers,
                "y": [layer.sqnr_db for layer in layers],
                "yaxis": "y2",
                "marker": {"color": SQNR_COLOUR, "size": 7},
                "line": {"color": SQNR_COLOUR, "width": 2},
                "hovertemplate": "layer %{x}<br>SQNR %{y:.2f} dB<extra></extra>",
            },
        ],
        "layout": {
            "showlegend": False,
            "margin": {"l": 72, "r": 16, "t": 16, "b": 48},
            "xaxis": layer_axis(numbers) | {"anchor": "y"},
            "yaxis": {
                "title": {"text": "Relative MSE"},
                "domain": [0.0, 0.52],
                "rangemode": "tozero",
                "tickformat": ".2~g",
            },
            "yaxis2": {
                "title": {"text": "SQNR (dB)"},
                "domain": [0.62, 1.0],
                "anchor": "x",
                "tickformat": ".1f",
            },
        },
    }


def layer_axis(layers: Sequence[int]) -> dict[str, Any]:
    """The axis of decoder layers, its ticks far enough apart for their numbers."""
    count = len(layers)
    tick = 1 if count <= 24 else 5 if count <= 80 else 10
    return {"title": {"text": "Layer"}, "dtick": tick}


def slice_height(slices: int) -> int:
    """The height in pixels of a chart with a line for each slice."""
    return 110 + 22 * max(slices, 3)

"""The charts of a comparison, as plotly reads them."""

from __future__ import annotations

from typing import Any

from app.comparison.views import ComparisonView
from app.quality.charts import LEGEND, layer_axis, slice_axis, slice_height, slice_label

# Okabe and Ito's colours that stand out on light and on dark, each with a mark of its own.
COLOURS = ("#3b6ea8", "#d08a2e", "#009e73", "#cc79a7", "#7a7f87", "#b0541f")
MARKS = ("circle", "square", "diamond", "triangle-up", "x", "star")


def errors_by_layer(view: ComparisonView) -> dict[str, Any]:
    """Relative MSE of each layer's weights, a line a job."""
    data = []
    for at, subject in enumerate(view.subjects):
        reports = [(row.layer, row.reports[at]) for row in view.layers]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": f"{subject.letter}: {subject.recipe or subject.name}",
                "x": [layer for layer, report in reports if report],
                "y": [report.relative_mse for _, report in reports if report],
                "marker": {"color": COLOURS[at], "symbol": MARKS[at], "size": 8},
                "line": {"color": COLOURS[at], "width": 2},
                "hovertemplate": (
                    f"{subject.letter}, layer %{{x}}<br>relative MSE %{{y:.4g}}<extra></extra>"
                ),
            }
        )
    return {
        "data": data,
        "layout": {
            "title": {"text": "Error of weights by layer"},
            "legend": LEGEND,
            "margin": {"l": 72, "r": 16, "t": 16, "b": 48},
            "xaxis": layer_axis([row.layer for row in view.layers]),
            "yaxis": {
                "title": {"text": "Relative MSE"},
                "rangemode": "tozero",
                "tickformat": ".2~g",
            },
        },
    }


def differences_by_slice(view: ComparisonView, pair: int) -> dict[str, Any]:
    """The change of each slice's mean KL with its interval; filled marks are beyond chance."""
    shown = view.pairs[pair]
    slices = list(reversed(shown.slices))
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "x": [one.difference for one in slices],
                "y": [slice_label(one.facet or "", one.value or "") for one in slices],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [one.high - one.difference for one in slices],
                    "arrayminus": [one.difference - one.low for one in slices],
                    "color": COLOURS[0],
                    "thickness": 1.4,
                },
                "marker": {
                    "color": COLOURS[0],
                    "size": 9,
                    "symbol": [
                        "circle" if one.is_beyond_chance else "circle-open" for one in slices
                    ],
                },
                "customdata": [[one.rows, one.low, one.high, one.verdict] for one in slices],
                "hovertemplate": (
                    "%{y}<br>%{x:.3g} nats a token (95 % %{customdata[1]:.3g} to "
                    "%{customdata[2]:.3g})<br>%{customdata[0]} rows, %{customdata[3]}"
                    "<extra></extra>"
                ),
            }
        ],
        "layout": {
            "title": {"text": f"Change of KL by slice, {shown.second} minus {shown.first}"},
            "showlegend": False,
            "height": slice_height(len(slices)),
            "margin": {"l": 190, "r": 16, "t": 16, "b": 48},
            "xaxis": {
                "title": {"text": "Change of KL (nats a token)"},
                "zeroline": True,
                "zerolinewidth": 2,
                "tickformat": ".2~g",
            },
            "yaxis": slice_axis(len(slices)),
        },
    }  # fmt: skip

"""The charts of a job's errors, as plotly reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.coverage.heatmap import typed
from app.facets import Facet, label_of
from app.formatting import SIZE_UNITS
from app.jobs.spec import LayerReport, RouterAgreement, SliceDivergence
from app.quality.measures import ExpertError, KindError, MappingError, searches_by_layer

ERROR_COLOUR = "#3b6ea8"
SQNR_COLOUR = "#d08a2e"
OUTPUT_COLOUR = "#009e73"
HELD_OUT_COLOUR = "#cc79a7"
# Thousands of slices would be a picture of ninety thousand pixels.
MOST_SLICES = 100
MARGIN = {"l": 72, "r": 16, "t": 16, "b": 48}
# Above the panel, growing upwards where its words do not fit in a line.
LEGEND = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}


def error_by_layer(layers: Sequence[LayerReport]) -> dict[str, Any]:
    """Relative MSE of each layer's quantized weights as bars; above it SQNR in dB of weights, of
    the layer's output on calibration rows and of that on held-out rows as lines.

    Two panels one above the other with the layers in common, so that no axis has two meanings.
    """
    numbers = [layer.layer for layer in layers]
    bars = {
        "type": "bar",
        "name": "Relative MSE of weights",
        "x": numbers,
        "y": [layer.relative_mse for layer in layers],
        "marker": {"color": ERROR_COLOUR},
        "showlegend": False,
        "hovertemplate": "layer %{x}<br>relative MSE %{y:.4g}<extra></extra>",
    }
    lines = [
        _line("Weights", numbers, [one.sqnr_db for one in layers], SQNR_COLOUR, "circle"),
        _line("Output", numbers, [one.output_sqnr_db for one in layers], OUTPUT_COLOUR, "square"),
        _line(
            "Output, held out",
            numbers,
            [one.held_out_sqnr_db for one in layers],
            HELD_OUT_COLOUR,
            "diamond",
        ),
    ]
    measured = [line for line in lines if any(y is not None for y in line["y"])]
    layout = _two_panels("Error by layer", numbers, "Relative MSE", ("SQNR (dB)", ".1f"))
    layout["legend"] = LEGEND
    return {"data": [bars, *measured], "layout": layout}


def router_drift(layers: Sequence[RouterAgreement]) -> dict[str, Any]:
    """KL of the routers' probabilities as bars, and above it the share of tokens that keep their
    experts as a line."""
    numbers = [layer.layer for layer in layers]
    bars = {
        "type": "bar",
        "name": "KL of probabilities",
        "x": numbers,
        "y": [layer.kl for layer in layers],
        "marker": {"color": ERROR_COLOUR},
        "hovertemplate": "layer %{x}<br>KL %{y:.4g} nats a token<extra></extra>",
    }
    line = _line("Same experts", numbers, [one.share for one in layers], SQNR_COLOUR, "circle")
    line["hovertemplate"] = "layer %{x}<br>same experts for %{y:.2%} of tokens<extra></extra>"
    drift, agreement = "KL (nats a token)", ("Same experts", ".0%")
    layout = _two_panels("Router drift by layer", numbers, drift, agreement)
    return {"data": [bars, line], "layout": layout | {"showlegend": False}}


def _two_panels(
    title: str, numbers: Sequence[int], lower: str, upper: tuple[str, str]
) -> dict[str, Any]:
    """The layout of amounts by layer (``y``, from zero) below another measure of the layers
    (``y2``): the title of the lower axis, that of the upper one with its format."""
    return {
        "title": {"text": title},
        "margin": MARGIN,
        "xaxis": layer_axis(numbers) | {"anchor": "y"},
        "yaxis": {
            "title": {"text": lower},
            "domain": [0.0, 0.46],
            "rangemode": "tozero",
            "tickformat": ".2~g",
        },
        "yaxis2": {
            "title": {"text": upper[0]},
            "domain": [0.56, 1.0],
            "anchor": "x",
            "tickformat": upper[1],
        },
    }


def divergence_by_slice(slices: Sequence[SliceDivergence]) -> dict[str, Any]:
    """Mean KL of each slice with its interval, the largest above; of many slices the largest
    :data:`MOST_SLICES` alone."""
    shown = sorted(slices, key=lambda one: one.kl_mean)[-MOST_SLICES:]
    part = f", the {len(shown)} largest" if len(shown) < len(slices) else ""
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "x": [one.kl_mean for one in shown],
                "y": [slice_label(one.facet, one.value) for one in shown],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [one.kl_high - one.kl_mean for one in shown],
                    "arrayminus": [one.kl_mean - one.kl_low for one in shown],
                    "color": ERROR_COLOUR,
                    "thickness": 1.4,
                },
                "marker": {"color": ERROR_COLOUR, "size": 9},
                "customdata": [[one.rows, one.kl_low, one.kl_high] for one in shown],
                "hovertemplate": (
                    "%{y}<br>%{x:.4g} nats a token (95 % %{customdata[1]:.3g} to "
                    "%{customdata[2]:.3g})<br>%{customdata[0]} rows<extra></extra>"
                ),
            }
        ],
        "layout": {
            "title": {"text": f"KL divergence from the original by slice{part}"},
            "showlegend": False,
            "height": slice_height(len(shown)),
            "margin": MARGIN | {"l": 190},
            "xaxis": {
                "title": {"text": "Mean KL (nats a token)"},
                "rangemode": "tozero",
                "tickformat": ".2~g",
            },
            "yaxis": slice_axis(len(shown)),
        },
    }


def search_by_layer(mappings: Sequence[MappingError]) -> dict[str, Any]:
    """AWQ's loss before and after its search, each layer's mappings added up."""
    layers = searches_by_layer(mappings)
    numbers = [layer.layer for layer in layers]
    series = (
        ("before", [layer.initial_error for layer in layers], SQNR_COLOUR),
        ("after", [layer.best_error for layer in layers], ERROR_COLOUR),
    )
    return {
        "data": [
            {
                "type": "bar",
                "name": name,
                "x": numbers,
                "y": values,
                "marker": {"color": colour},
                "hovertemplate": f"layer %{{x}}<br>{name} %{{y:.4g}}<extra></extra>",
            }
            for name, values, colour in series
        ],
        "layout": {
            "title": {"text": "Scale search: loss before and after, by layer"},
            "barmode": "group",
            "legend": LEGEND,
            "margin": MARGIN,
            "xaxis": layer_axis(numbers),
            "yaxis": {"title": {"text": "MSE, sum of mappings"}, "tickformat": ".2~g"},
        },
    }


def error_by_expert(experts: Sequence[ExpertError]) -> dict[str, Any]:
    """Relative MSE, layer × expert."""
    layers = sorted({one.layer for one in experts})
    row_of = {layer: row for row, layer in enumerate(layers)}
    width = max((one.expert for one in experts), default=-1) + 1
    errors = np.full((len(layers), width), np.nan)
    for one in experts:
        errors[row_of[one.layer], one.expert] = one.relative_mse
    trace = _error_map(errors) | {
        "y": [str(layer) for layer in layers],
        "hovertemplate": "<b>Layer %{y}, expert %{x}</b><br>relative MSE %{z:.4g}<extra></extra>",
    }
    layout = {
        "title": {"text": "Error of weights by layer and expert"},
        "margin": MARGIN,
        "xaxis": {"title": {"text": "Expert"}, "showgrid": False, "zeroline": False},
        "yaxis": {
            "title": {"text": "Decoder layer"},
            "type": "category",
            "autorange": "reversed",
            "showgrid": False,
        },
    }
    return {"data": [trace], "layout": layout}


def error_by_kind(found: Sequence[KindError]) -> dict[str, Any]:
    """Relative MSE, kind of weight × layer; the pointer names the worst module of a cell."""
    layers = sorted({one.layer for one in found})
    kinds = sorted({one.kind for one in found})
    errors = np.full((len(kinds), len(layers)), np.nan)
    words = [[""] * len(layers) for _ in kinds]
    for one in found:
        row, column = kinds.index(one.kind), layers.index(one.layer)
        errors[row, column] = one.relative_mse
        worst = f"<br>worst: {one.worst} {one.worst_mse:.4g}" if one.weights > 1 else ""
        words[row][column] = f"of {one.weights:,} modules{worst}"
    trace = _error_map(errors) | {
        "x": [str(layer) for layer in layers],
        "y": kinds,
        "text": words,
        "hovertemplate": (
            "<b>Layer %{x}, %{y}</b><br>relative MSE %{z:.4g} %{text}<extra></extra>"
        ),
    }
    layout = {
        "title": {"text": "Error of weights by layer and kind of module"},
        "height": 140 + 26 * max(len(kinds), 4),
        "margin": MARGIN,
        "xaxis": layer_axis(layers) | {"type": "category", "showgrid": False},
        "yaxis": {"type": "category", "autorange": "reversed", "showgrid": False}
        | {"title": {"text": "Kind of module", "standoff": 12}, "automargin": True},
    }
    return {"data": [trace], "layout": layout}


def _error_map(errors: NDArray[np.float64]) -> dict[str, Any]:
    gap = 1 if errors.shape[1] <= 64 else 0
    return {
        "type": "heatmap",
        "z": typed(errors, "f4"),
        "colorscale": "Cividis",
        "xgap": gap,
        "ygap": gap,
        "colorbar": {
            "title": {"text": "Relative MSE", "side": "right"},
            "thickness": 12,
            "outlinewidth": 0,
            "tickformat": ".3~g",
        },
    }


def error_by_size(
    steps: Sequence[tuple[str, int, float]], budget: int | None, unit: str
) -> dict[str, Any]:
    """The predicted error that is left by the checkpoint's size, a mark a step; the first is the
    checkpoint as it is. A vertical line is the budget. Sizes are drawn in ``unit``."""
    one = SIZE_UNITS[unit]
    line = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [size / one for _, size, _ in steps],
        "y": [error for _, _, error in steps],
        "text": [name for name, _, _ in steps],
        "marker": {"color": ERROR_COLOUR, "size": 6},
        "line": {"color": ERROR_COLOUR, "width": 2, "shape": "hv"},
        "hovertemplate": f"%{{text}}<br>%{{x:.4g}} {unit}, error left %{{y:.3g}}<extra></extra>",
    }
    mark = {
        "type": "line",
        "x0": (budget or 0) / one,
        "x1": (budget or 0) / one,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": {"color": SQNR_COLOUR, "width": 2, "dash": "dash"},
    }
    return {
        "data": [line],
        "layout": {
            "title": {"text": "Predicted error by size of the checkpoint"},
            "showlegend": False,
            "margin": MARGIN,
            "shapes": [mark] if budget else [],
            "xaxis": {
                "title": {"text": f"Size ({unit}); dashed: the budget"},
                "tickformat": ".4~g",
            },
            "yaxis": {
                "title": {"text": "Error left, sum of layers"},
                "rangemode": "tozero",
                "tickformat": ".2~g",
            },
        },
    }


def slice_label(facet: str, value: str) -> str:
    """A slice as an axis names it: ``COBOL · programming``."""
    shown = label_of(Facet(facet), value) if facet in set(Facet) else value
    return f"{shown} · {facet.removesuffix('_language')}"


def slice_axis(slices: int) -> dict[str, Any]:
    """The axis of slices, a line for each and no empty ones above and below."""
    return {"automargin": True, "type": "category", "range": [-0.7, slices - 0.3]}


def layer_axis(layers: Sequence[int]) -> dict[str, Any]:
    """The axis of decoder layers, its ticks far enough apart for their numbers."""
    count = len(layers)
    tick = 1 if count <= 24 else 5 if count <= 80 else 10
    return {"title": {"text": "Layer"}, "dtick": tick}


def slice_height(slices: int) -> int:
    """The height in pixels of a chart with a line for each slice."""
    return 110 + 22 * max(slices, 3)


def _line(
    name: str, x: Sequence[int], y: Sequence[float | None], colour: str, mark: str
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(x),
        "y": list(y),
        "yaxis": "y2",
        "marker": {"color": colour, "size": 8, "symbol": mark},
        "line": {"color": colour, "width": 2},
        "hovertemplate": f"layer %{{x}}<br>{name}: SQNR %{{y:.2f}} dB<extra></extra>",
    }

"""The coverage heatmap, layer × expert, as a plotly figure in plain JSON.

Arrays travel as base64 typed arrays (plotly.js reads ``{"dtype", "bdata", "shape"}``): a third of
the size of lists. No plotly in Python is needed for that.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.coverage.profile import Profile
from app.coverage.summary import ranks, shares
from app.facets import Facet, label_of

Measure = Literal["tokens", "share", "mass"]
Order = Literal["expert", "load"]
Scale = Literal["linear", "log"]

TITLES: dict[Measure, str] = {
    "tokens": "Routed tokens",
    "share": "Share of the layer's routed tokens",
    "mass": "Router weight",
}
HOVER_FACETS = (Facet.SPOKEN_LANGUAGE, Facet.PROGRAMMING_LANGUAGE, Facet.DOMAIN)
FEEDERS_SHOWN = 3
# Above this many cells the hover names one feeder a facet: the figure stays under 150 kB packed.
MANY_CELLS = 4096
# What one step from zero is on the logarithmic scale: a token, or a hundredth of a percent.
LOG_UNITS: dict[Measure, float] = {"tokens": 1.0, "share": 1e-4, "mass": 1.0}
DTYPES = {"f4": np.float32, "i4": np.int32, "u2": np.uint16}


def heatmap(
    profile: Profile,
    *,
    measure: Measure = "tokens",
    order: Order = "expert",
    scale: Scale = "linear",
    font_colour: str = "#444",
    largest: float | None = None,
) -> dict[str, Any]:
    """The figure: x the expert (or its place by load), y the decoder layer, colour the measure.

    ``largest`` fixes the end of the colour scale, so that two heatmaps can be compared.
    ``customdata`` of a cell is expert, tokens, share, rank and a line of feeders for each facet.
    """
    columns = _columns(profile, order)
    amounts = np.take_along_axis(_amounts(profile, measure), columns, axis=1)
    end = largest or float(amounts.max(initial=0.0)) or 1.0
    trace = {
        "type": "heatmap",
        "z": typed(_scaled(amounts, measure, scale), "f4"),
        "y": [f"{layer}" for layer in profile.layers],
        "x0": 1 if order == "load" else 0,
        "dx": 1,
        "customdata": _customdata(profile, columns),
        "hovertemplate": _hover(),
        "colorscale": "Cividis",
        "xgap": 1 if profile.experts <= 64 else 0,
        "ygap": 1 if profile.experts <= 64 else 0,
        "zmin": 0,
        "zmax": float(_scaled(np.array(end), measure, scale)),
        "colorbar": _colourbar(measure, scale, end),
    }
    return {"data": [trace], "layout": _layout(measure, order, font_colour)}


def typed(array: NDArray[Any], dtype: Literal["f4", "i4", "u2"]) -> dict[str, str]:
    """An array as plotly.js reads it: little-endian base64, with the shape when it has two
    dimensions."""
    data = np.ascontiguousarray(array, dtype=np.dtype(DTYPES[dtype]).newbyteorder("<"))
    packed = {"dtype": dtype, "bdata": base64.b64encode(data.tobytes()).decode("ascii")}
    if data.ndim > 1:
        packed["shape"] = ", ".join(str(size) for size in data.shape)
    return packed


def _columns(profile: Profile, order: Order) -> NDArray[np.intp]:
    """The expert in each column of each layer, [layers, experts]."""
    if order == "load":
        return np.argsort(-profile.layer_counts, axis=1, kind="stable")
    return np.tile(np.arange(profile.experts), (len(profile.layers), 1))


def _amounts(profile: Profile, measure: Measure) -> NDArray[np.float64]:
    match measure:
        case "tokens":
            return profile.layer_counts.astype(np.float64)
        case "share":
            return shares(profile.layer_counts)
        case "mass":
            return profile.layer_mass


def _scaled(amounts: NDArray[np.float64], measure: Measure, scale: Scale) -> NDArray[np.float64]:
    """Colour values: the amounts, or log10(1 + amount / unit), which keeps 0 on the scale."""
    return amounts if scale == "linear" else np.log10(1 + amounts / LOG_UNITS[measure])


def _customdata(profile: Profile, columns: NDArray[np.intp]) -> list[list[list[Any]]]:
    counts = profile.layer_counts
    share, rank = shares(counts), ranks(counts)
    lines = [_feeder_lines(profile, facet) for facet in HOVER_FACETS]
    return [
        [
            [
                int(expert),
                int(counts[row, expert]),
                round(float(share[row, expert]), 5),
                int(rank[row, expert]),
                *(line[row][expert] for line in lines),
            ]
            for expert in columns[row]
        ]
        for row in range(len(profile.layers))
    ]


def _feeder_lines(profile: Profile, facet: Facet) -> list[list[str]]:
    """For every layer and expert the values of a facet that feed it most: "Rust 12 %, Go 9 %"."""
    values, counts = profile.counts_by(facet.value)
    if not values:
        return [["none"] * profile.experts for _ in profile.layers]
    labels = [label_of(facet, value) for value in values]
    top = FEEDERS_SHOWN if profile.layer_counts.size <= MANY_CELLS else 1
    best = np.argsort(-counts, axis=0, kind="stable")[:top]
    fed = np.take_along_axis(counts, best, axis=0)
    percent = np.rint(100 * fed / np.maximum(profile.layer_counts, 1)).astype(int)
    return [
        [
            _line(labels, best[:, row, expert], fed[:, row, expert], percent[:, row, expert])
            for expert in range(profile.experts)
        ]
        for row in range(len(profile.layers))
    ]


def _line(
    labels: Sequence[str],
    best: NDArray[np.intp],
    fed: NDArray[np.int64],
    percent: NDArray[np.intp],
) -> str:
    named = zip(best, fed, percent, strict=True)
    return ", ".join(f"{labels[i]} {part} %" for i, tokens, part in named if tokens) or "none"


def _hover() -> str:
    facets = "".join(
        f"<br>{facet.label}: %{{customdata[{place}]}}"
        for place, facet in enumerate(HOVER_FACETS, start=4)
    )
    return (
        "<b>Layer %{y}, expert %{customdata[0]}</b>"
        "<br>%{customdata[1]:,} tokens, %{customdata[2]:.2%} of the layer"
        f"<br>Rank %{{customdata[3]}} in its layer{facets}<extra></extra>"
    )


def _colourbar(measure: Measure, scale: Scale, largest: float) -> dict[str, Any]:
    bar: dict[str, Any] = {
        "title": {"text": TITLES[measure], "side": "right"},
        "thickness": 12,
        "outlinewidth": 0,
    }
    if measure == "share":
        bar["tickformat"] = ".1%"
    if scale == "log":
        steps = LOG_UNITS[measure] * 10.0 ** np.arange(12)
        ticks = np.concatenate(([0.0], steps[steps <= largest]))
        bar["tickvals"] = _scaled(ticks, measure, scale).tolist()
        bar["ticktext"] = [
            f"{tick:.2%}" if measure == "share" else f"{tick:,.0f}" for tick in ticks
        ]
    return bar


def _layout(measure: Measure, order: Order, font_colour: str) -> dict[str, Any]:
    """Transparent, so that the page's light or dark ground shows; the page gives the font."""
    across = "Expert" if order == "expert" else "Place of the expert in its layer, by tokens"
    return {
        "title": {"text": f"{TITLES[measure]} by layer and expert"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": font_colour, "family": "inherit"},
        "margin": {"l": 56, "r": 16, "t": 48, "b": 48},
        "xaxis": {"title": {"text": across}, "showgrid": False, "zeroline": False},
        "yaxis": {
            "title": {"text": "Decoder layer"},
            "type": "category",
            "autorange": "reversed",
            "showgrid": False,
        },
    }

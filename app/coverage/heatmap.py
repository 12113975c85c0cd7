"""Heatmaps, layer × expert, as plotly figures in plain JSON.

Arrays travel as base64 typed arrays (plotly.js reads ``{"dtype", "bdata", "shape"}``): a third of
the size of lists. What the pointer shows of a cell travels beside the figure under ``hover``, as
arrays too, and becomes words in the browser (``static/charts.js``): 62 × 256 cells as text would
be twice as large as all of it is now. No plotly in Python is needed.
"""

from __future__ import annotations

import base64
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.coverage.profile import Profile
from app.coverage.summary import shares
from app.facets import Facet, label_of

Measure = Literal["tokens", "share", "mass", "deviation"]
Order = Literal["expert", "load"]
Scale = Literal["linear", "log"]
Dtype = Literal["f4", "i4", "u2", "u1"]

TITLES: dict[Measure, str] = {
    "tokens": "Routed tokens",
    "share": "Share of the layer's routed tokens",
    "mass": "Router weight",
    "deviation": "Tokens against the layer's mean",
}
HOVER_COLUMNS = (*(facet.value for facet in Facet), "source")
FEEDERS_SHOWN = 3
# Above this many cells the pointer names one feeder a facet, to the nearest five percent: the JSON
# stays under 150 kB packed.
MANY_CELLS = 4096
COARSE_PERCENT = 5
# What one step from zero is on the logarithmic scale: a token, or a hundredth of a percent.
LOG_UNITS: dict[Measure, float] = {"tokens": 1.0, "share": 1e-4, "mass": 1.0}
# Blue below, orange above, light between: told apart by every kind of colour vision.
DIVERGING = [[0, "#2166ac"], [0.25, "#92c5de"], [0.5, "#f7f7f7"], [0.75, "#fdb863"], [1, "#b35806"]]
DTYPES = {"f4": np.float32, "i4": np.int32, "u2": np.uint16, "u1": np.uint8}
# Colours need no more of a float than this: the rest would only take room on the wire.
COLOUR_BITS = np.uint32(0xFFFF8000)


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
    ``deviation`` is tokens over the layer's mean less 1, or on the logarithmic scale the log2 of
    their ratio, around 0 on a diverging scale.
    """
    columns = _columns(profile, order)
    z, colours = _coloured(profile, columns, measure, scale, largest)
    trace = {**_cells(profile, columns, order), "z": z, **colours}
    hover = {
        **_hover(profile, columns, order),
        "tokens": None if measure == "tokens" and scale == "linear" else _tokens(profile, columns),
    }
    title = TITLES[measure]
    return {"data": [trace], "layout": _layout(title, order, font_colour), "hover": hover}


def difference(
    one: Profile,
    other: Profile,
    names: tuple[str, str],
    *,
    measure: Measure = "share",
    font_colour: str = "#444",
) -> dict[str, Any]:
    """Two profiles of one model as one map: ``other`` less ``one``, in tokens or in share of the
    layer's tokens, on a scale that is as wide on both sides of 0."""
    amounts = _amounts(other, measure) - _amounts(one, measure)
    columns = _columns(one, "expert")
    end = float(np.abs(amounts).max(initial=0.0)) or 1.0
    title = f"{TITLES[measure]}: {names[1]} less {names[0]}"
    bar: dict[str, Any] = _bar(f"{TITLES[measure]}, difference")
    bar["tickformat"] = ".2%" if measure == "share" else ",d"
    trace = {
        **_cells(one, columns, "expert"),
        "z": typed(_for_colours(amounts), "f4"),
        "colorscale": DIVERGING,
        "zmin": -end,
        "zmax": end,
        "colorbar": bar,
    }
    hover = {
        "names": list(names),
        "tokens": _tokens(one, columns),
        "others": _tokens(other, columns),
        "experts": None,
        "facets": [],
    }
    return {"data": [trace], "layout": _layout(title, "expert", font_colour), "hover": hover}


def typed(array: NDArray[Any], dtype: Dtype) -> dict[str, str]:
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


def _cells(profile: Profile, columns: NDArray[np.intp], order: Order) -> dict[str, Any]:
    apart = 1 if columns.shape[1] <= 64 else 0
    return {
        "type": "heatmap",
        "y": [f"{layer}" for layer in profile.layers],
        "x0": 1 if order == "load" else 0,
        "dx": 1,
        "xgap": apart,
        "ygap": apart,
    }


def _coloured(
    profile: Profile,
    columns: NDArray[np.intp],
    measure: Measure,
    scale: Scale,
    largest: float | None,
) -> tuple[dict[str, str], dict[str, Any]]:
    """The cells' values, and the colour scale they are shown on."""
    amounts = np.take_along_axis(_amounts(profile, measure), columns, axis=1)
    if measure == "deviation":
        values = _deviations(amounts, scale)
        end = largest or float(np.abs(values).max(initial=0.0)) or 1.0
        bar = _bar(TITLES[measure] + (", log2" if scale == "log" else ""))
        bar["tickformat"] = ".1f" if scale == "log" else ".0%"
        colours = {"colorscale": DIVERGING, "zmin": -end, "zmax": end, "colorbar": bar}
        return typed(_for_colours(values), "f4"), colours
    end = largest or float(amounts.max(initial=0.0)) or 1.0
    colours = {
        "colorscale": "Cividis",
        "zmin": 0,
        "zmax": float(_scaled(np.array(end), measure, scale)),
        "colorbar": _colourbar(measure, scale, end),
    }
    if measure == "tokens" and scale == "linear":
        return typed(amounts, "i4"), colours
    return typed(_for_colours(_scaled(amounts, measure, scale)), "f4"), colours


def _amounts(profile: Profile, measure: Measure) -> NDArray[np.float64]:
    match measure:
        case "tokens":
            return profile.layer_counts.astype(np.float64)
        case "share":
            return shares(profile.layer_counts)
        case "mass":
            return profile.layer_mass
        case "deviation":
            return shares(profile.layer_counts) * profile.experts


def _scaled(amounts: NDArray[np.float64], measure: Measure, scale: Scale) -> NDArray[np.float64]:
    """Colour values: the amounts, or log10(1 + amount / unit), which keeps 0 on the scale."""
    return amounts if scale == "linear" else np.log10(1 + amounts / LOG_UNITS[measure])


def _deviations(ratios: NDArray[np.float64], scale: Scale) -> NDArray[np.float64]:
    """Around 0: the ratio to the mean less 1, or its log2, where 0 counts as a hundredth."""
    if scale == "linear":
        return ratios - 1
    return np.asarray(np.log2(np.maximum(ratios, 0.01)), dtype=np.float64)


def _for_colours(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The values to within half a percent."""
    bits = values.astype(np.float32).view(np.uint32)
    return (bits & COLOUR_BITS).view(np.float32)


def _tokens(profile: Profile, columns: NDArray[np.intp]) -> dict[str, str]:
    return typed(np.take_along_axis(profile.layer_counts, columns, axis=1), "i4")


def _hover(profile: Profile, columns: NDArray[np.intp], order: Order) -> dict[str, Any]:
    """What the pointer shows of a cell, but its tokens: the expert where columns are sorted, and
    for each facet and the source the values that feed it most."""
    return {
        "experts": typed(columns, "u2") if order == "load" else None,
        "facets": [_feeders(profile, column, columns) for column in HOVER_COLUMNS],
    }


def _feeders(profile: Profile, column: str, columns: NDArray[np.intp]) -> dict[str, Any]:
    """The values of a facet column, and for each cell the numbers of those that feed it most and
    their part of its tokens in percent; 0 percent for none."""
    values, counts = profile.counts_by(column) if column in profile.facets else ([], None)
    label = column.replace("_", " ").capitalize()
    if not values or counts is None:
        return {"label": label, "values": [], "top": []}
    shown = FEEDERS_SHOWN if profile.layer_counts.size <= MANY_CELLS else 1
    best = counts.argmax(axis=0)[None]
    if shown > 1:
        best = np.argsort(-counts, axis=0, kind="stable")[:shown]
    fed = np.take_along_axis(counts, best, axis=0)
    step = 1 if shown > 1 else COARSE_PERCENT
    percent = step * np.rint(100 / step * fed / np.maximum(profile.layer_counts, 1))
    code: Dtype = "u1" if len(values) <= 256 else "u2"
    facet = Facet(column) if column in set(Facet) else None
    return {
        "label": label,
        "values": [label_of(facet, value) if facet else value for value in values],
        "top": [
            {
                "value": typed(np.take_along_axis(place, columns, axis=1), code),
                "percent": typed(np.take_along_axis(part, columns, axis=1), "u1"),
            }
            for place, part in zip(best, percent, strict=True)
        ],
    }


def _bar(title: str) -> dict[str, Any]:
    return {"title": {"text": title, "side": "right"}, "thickness": 12, "outlinewidth": 0}


def _colourbar(measure: Measure, scale: Scale, largest: float) -> dict[str, Any]:
    bar = _bar(TITLES[measure])
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


def _layout(title: str, order: Order, font_colour: str) -> dict[str, Any]:
    """Transparent, so that the page's light or dark ground shows; the page gives the font."""
    across = "Expert" if order == "expert" else "Place of the expert in its layer, by tokens"
    return {
        "title": {"text": f"{title} by layer and expert"},
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

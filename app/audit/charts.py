"""The chart of a set's row lengths, as plotly reads it."""

from __future__ import annotations

from typing import Any

from app.audit.report import Lengths

ROWS_COLOUR = "#3b6ea8"


def row_lengths(lengths: Lengths) -> dict[str, Any]:
    """A histogram of rows by their length in tokens."""
    bins = lengths.bins
    return {
        "data": [
            {
                "type": "bar",
                "x": [(one.low + one.high) / 2 for one in bins],
                "width": [one.high - one.low for one in bins],
                "y": [one.rows for one in bins],
                "customdata": [[one.low, one.high - 1, one.tokens] for one in bins],
                "marker": {"color": ROWS_COLOUR},
                "hovertemplate": (
                    "%{customdata[0]:,} to %{customdata[1]:,} tokens<br>%{y:,} rows, "
                    "%{customdata[2]:,} tokens<extra></extra>"
                ),
            }
        ],
        "layout": {
            "showlegend": False,
            "bargap": 0.04,
            "margin": {"l": 56, "r": 16, "t": 16, "b": 48},
            "xaxis": {"title": {"text": "Tokens in a row"}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": "Rows"}, "rangemode": "tozero", "tickformat": ",d"},
        },
    }

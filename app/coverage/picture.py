"""The coverage heatmap as a picture without a browser: SVG with title, axes and scale.

Colours are cividis (Nuñez, Anderton and Renslow 2018), in 24 steps from no routed token to the
most; the cells of a step are one path, so 62 × 256 cells stay a small file.
"""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

# Cividis at nine places from its dark to its bright end.
ANCHORS = ("00224e", "123570", "3b496c", "575d6d", "707173", "8a8678", "a59c74", "c3b369", "fee838")
STEPS = 24
WIDTH, LEFT, TOP, BOTTOM, SCALE = 900, 64, 44, 52, 96


def coverage_svg(counts: NDArray[np.int64], layers: NDArray[np.int64], title: str) -> str:
    """A standalone SVG of routed tokens ``counts`` [layers, experts]; ``layers`` are the decoder
    layers' indices."""
    rows, experts = counts.shape
    across = (WIDTH - LEFT - SCALE) / experts
    down = min(26.0, max(4.0, 420 / rows))
    height = TOP + round(rows * down) + BOTTOM
    step = _steps(counts)
    cells = [
        f'<path fill="#{_colour(level / (STEPS - 1))}" d="'
        + "".join(
            f"M{LEFT + expert * across:.2f} {TOP + row * down:.2f}"
            f"h{across:.2f}v{down:.2f}h-{across:.2f}z"
            for row, expert in np.argwhere(step == level)
        )
        + '"/>'
        for level in np.unique(step)
    ]
    every = max(1, -(-rows // 20))
    names = [
        f'<text x="{LEFT - 8}" y="{TOP + (row + 0.5) * down + 4:.1f}" '
        f'text-anchor="end">{layer}</text>'
        for row, layer in enumerate(layers)
        if row % every == 0
    ]
    ticks = [
        f'<text x="{LEFT + (expert + 0.5) * across:.1f}" y="{height - 32}" '
        f'text-anchor="middle">{expert}</text>'
        for expert in range(0, experts, max(1, experts // 8))
    ]
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
            f'font-family="sans-serif" font-size="12" fill="#22262b">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
            f'<text x="{LEFT}" y="24" font-size="15">{escape(title)}</text>',
            *cells,
            *names,
            *ticks,
            f'<text x="{LEFT}" y="{height - 10}">Expert (across), decoder layer (down)</text>',
            _scale(int(counts.max(initial=0)), rows * down),
            "</svg>\n",
        )
    )


def _steps(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    largest = int(counts.max(initial=0)) or 1
    return np.minimum(counts * STEPS // largest, STEPS - 1)


def _colour(share: float) -> str:
    place = share * (len(ANCHORS) - 1)
    low = min(int(place), len(ANCHORS) - 2)
    ends = [np.array([int(ANCHORS[at][i : i + 2], 16) for i in (0, 2, 4)]) for at in (low, low + 1)]
    mixed = ends[0] + (ends[1] - ends[0]) * (place - low)
    return "".join(f"{round(float(part)):02x}" for part in mixed)


def _scale(largest: int, height: float) -> str:
    """The colours from none to the most tokens, with both ends named."""
    left, each = WIDTH - SCALE + 24, height / STEPS
    bars = "".join(
        f'<rect x="{left}" y="{TOP + height - (level + 1) * each:.2f}" width="12" '
        f'height="{each + 0.3:.2f}" fill="#{_colour(level / (STEPS - 1))}"/>'
        for level in range(STEPS)
    )
    return (
        f'{bars}<text x="{left + 16}" y="{TOP + 10}">{largest:,}</text>'
        f'<text x="{left + 16}" y="{TOP + height:.1f}">0</text>'
        f'<text x="{left}" y="{TOP - 8}">tokens</text>'
    )

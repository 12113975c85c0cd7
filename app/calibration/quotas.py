"""Sharing whole tokens: by weight, and equally up to what each has."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


def by_weight(total: int, weights: Sequence[float]) -> list[int]:
    """``total`` in whole parts in proportion to ``weights`` (largest remainder, Hamilton 1792).

    The parts sum to ``total``. Equal remainders go to the earlier weight. Fractions, because a
    sum of floats depends on its order.
    """
    exact = [Fraction(weight) for weight in weights]
    whole = sum(exact)
    shares = [total * weight / whole for weight in exact]
    parts = [int(share) for share in shares]
    by_remainder = sorted(range(len(parts)), key=lambda i: (parts[i] - shares[i], i))
    for i in by_remainder[: total - sum(parts)]:
        parts[i] += 1
    return parts


def equally(total: int, available: NDArray[np.int64]) -> NDArray[np.int64]:
    """``total`` poured like water into vessels of capacity ``available``.

    Every part is the same level or, where that is less, all its vessel holds; the parts sum to
    the smaller of ``total`` and the sum of ``available``. Tokens that do not divide go one each
    to the first vessels that have room.
    """
    capacities = np.sort(available)
    filled_below = np.concatenate(([0], np.cumsum(capacities)))
    rest = min(total, int(filled_below[-1]))
    for filled, capacity in enumerate(capacities):
        level, remainder = divmod(rest - int(filled_below[filled]), len(capacities) - filled)
        if level < capacity or (level == capacity and remainder == 0):
            parts = np.minimum(available, level)
            room = np.flatnonzero(available > level)[:remainder]
            parts[room] += 1
            return parts
    return available.copy()

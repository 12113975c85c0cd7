"""How many tokens any choice of rows could give the worst-fed cells: an upper bound.

The mean of the m worst-fed of all cells is the least weighted mean of their tokens over weights of
at most 1/m each. Whatever the weights, no choice is worth more under them than the fractional
knapsack's best (rows may be taken in part, the dearest a token first, a group up to its quota): a
linear programme's dual. The weights that bound it lowest are sought by multiplicative steps (Arora,
Hazan and Kale 2012), so the bound holds whenever they end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.coverage.selection import Purse

TURNS = 400
Floats = NDArray[np.float64]


def ceiling(counts: NDArray[np.unsignedinteger], purse: Purse, part: float) -> float:
    """A bound on the mean tokens of the worst-fed ``part`` of all cells.

    ``counts`` [rows, layers, experts] are tokens. A group may pass its quota by its longest row,
    as a choice may by less than a row.
    """
    flat = counts.reshape(len(counts), -1).astype(np.float64)
    cells = flat.shape[1]
    most = 1 / max(1, int(np.ceil(part * cells)))
    scores, best = np.zeros(cells), np.inf
    for turn in range(TURNS):
        weights = _weights(scores, most)
        worth = flat @ weights
        taken = _knapsack(worth, purse)
        best = min(best, float(worth @ taken))
        fed = taken @ flat
        apart = fed - fed.mean()
        scores -= 3 / np.sqrt(turn + 1) * apart / max(1e-9, float(np.abs(apart).max()))
    return best


def _weights(scores: Floats, most: float) -> Floats:
    """Weights that add up to 1, none above ``most``, larger for larger scores."""
    weights: Floats = np.exp(scores - scores.max())
    full = np.zeros(len(weights), dtype=np.bool_)
    while True:
        weights[~full] *= (1 - most * full.sum()) / weights[~full].sum()
        over = weights > most * (1 + 1e-12)
        if not over.any():
            return weights
        full |= over
        weights[full] = most


def _knapsack(worth: Floats, purse: Purse) -> Floats:
    """The part of each row that is taken, the most worth a token first, [rows]."""
    groups = len(purse.quotas)
    longest = [purse.tokens[purse.groups == group].max(initial=0) for group in range(groups)]
    room = (purse.quotas + np.array(longest, dtype=np.int64)).astype(np.float64)
    left = float(purse.budget)
    taken = np.zeros(len(worth))
    for row in np.argsort(-worth / np.maximum(purse.tokens, 1), kind="stable").tolist():
        group, length = purse.groups[row], float(purse.tokens[row])
        amount = min(length, room[group], left) if group >= 0 else 0.0
        if amount > 0:
            taken[row] = amount / length
            room[group] -= amount
            left -= amount
    return taken

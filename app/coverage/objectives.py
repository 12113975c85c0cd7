"""What a choice of rows is to be good at: two objectives, both monotone and submodular.

An objective knows the rows chosen so far. ``gains`` says what each of some rows would add to it,
which only falls as rows are chosen: lazy greedy (``app.coverage.selection``) relies on that.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.intp]
Gains = NDArray[np.float64]
Unsigned = NDArray[np.unsignedinteger[Any]]

# Numbers worked on at once: they stay in the processor's cache.
CHUNK = 300_000
THREADS = 2
# Cells that have their floor are dropped when they are this share of those still kept.
DROP_SHARE = 0.25
# How many rows stand for the pool in the second objective, and by how many numbers each row is
# described: distances change by some percent (Johnson and Lindenstrauss 1984).
DEMAND_ROWS = 4096
DIMENSIONS = 256


class Objective(Protocol):
    """A monotone submodular function of the rows chosen so far.

    ``width`` is how many numbers a look at one row works on.
    """

    width: int

    def gains(self, rows: Rows) -> Gains:
        """What each of some rows would add, at least 0."""

    def take(self, row: int) -> None:
        """Choose a row."""


class ExpertFloors:
    """Tokens for the worst-fed experts: the sum over cells (layer, expert) of φ(min(t, floor)),
    t being the tokens the chosen rows route there.

    φ(t) = 1 - (1 + t/h)⁻³ with h = floor/16: a token for an expert that has none is worth most,
    one for an expert near its floor little, one past it nothing. This is α-fairness with α = 4
    (Mo and Walrand 2000), close to max-min and still differentiable by single tokens. A concave
    function of a sum of amounts that are not negative is submodular, and so is a sum of such
    (Lin and Bilmes 2011, "A class of submodular functions for document summarization").

    ``counts`` [rows, cells] are tokens, at most ``floor`` each (:func:`clipped`), and are used
    up: cells that have their floor are dropped from them in place. Sums and quotients of float32
    alone, so the choice is the same on any machine.
    """

    STEEPNESS = 16

    def __init__(self, counts: Unsigned, floor: int) -> None:
        self.width = counts.shape[1]
        self._counts = counts
        self._unit = np.float32(self.STEEPNESS / floor)
        self._full = np.float32(1 + self.STEEPNESS)
        self._fed = np.ones(counts.shape[1], dtype=np.float32)  # 1 + t/h of each cell

    def gains(self, rows: Rows) -> Gains:
        """What each row would add to the sum, at least 0."""
        cells = self._counts.shape[1]
        if not cells:
            return np.zeros(len(rows))
        lacking = _lack(self._fed.copy())
        return _by_parts(rows, cells, lambda part: self._gains(part, lacking))

    def _gains(self, rows: Rows, lacking: NDArray[np.float32]) -> Gains:
        fed = np.multiply(self._counts[rows], self._unit, dtype=np.float32)
        fed += self._fed
        np.minimum(fed, self._full, out=fed)
        less = np.subtract(lacking, _lack(fed), out=fed)
        return np.asarray(np.maximum(less.sum(axis=1), 0), dtype=np.float64)

    def take(self, row: int) -> None:
        """Feed a row's tokens to its cells."""
        fed = self._fed + self._counts[row] * self._unit
        self._fed = np.minimum(fed, self._full)
        wanting = self._fed < self._full
        if len(wanting) and 1 - wanting.mean() >= DROP_SHARE:
            self._keep(np.flatnonzero(wanting))

    def _keep(self, cells: NDArray[np.intp]) -> None:
        """Move the columns still wanted to the front of the same memory, row by row: a row's new
        place is never after its old one."""
        rows, width = self._counts.shape
        flat = self._counts.reshape(-1)
        step = max(1, CHUNK // width)
        for start in range(0, rows, step):
            part = self._counts[start : start + step][:, cells]
            begin = start * len(cells)
            flat[begin : begin + part.size] = part.reshape(-1)
        self._counts = flat[: rows * len(cells)].reshape(rows, len(cells))
        self._fed = self._fed[cells]


class ActivationSpread:
    """Rows that stand for the pool in activation space: facility location, the sum over the
    pool's rows of the similarity to the nearest chosen row.

    Similarity is (1 + cosine) / 2 of the rows' vectors, the mean of the last hidden states of
    their tokens where the profile has it, else the router's weight by layer and expert. That the
    place in activation space decides more than the label is found by He et al. (2510.10618) and
    by ACDM (ACL-SELVA 2026); Chimoto et al. (2601.18306) find gains for some languages and losses
    for others. Facility location is monotone and submodular (Nemhauser, Wolsey and Fisher 1978).

    ``vectors`` [rows, dimensions]; those of more than 256 dimensions are projected, and at most
    4,096 rows stand for the pool, both drawn by ``seed``.
    """

    def __init__(self, vectors: NDArray[np.floating[Any]], seed: int = 0) -> None:
        chance = np.random.default_rng(seed)
        self._vectors = _directions(vectors, chance)
        rows = len(vectors)
        stand = np.arange(rows)
        if rows > DEMAND_ROWS:
            stand = np.sort(chance.choice(rows, DEMAND_ROWS, replace=False))
        self._demand = self._vectors[stand]
        self.width = len(stand)
        self._nearest = np.zeros(len(stand), dtype=np.float32)

    def gains(self, rows: Rows) -> Gains:
        """What each row would add to the sum, at least 0."""
        return _by_parts(rows, len(self._demand), self._gains)

    def _gains(self, rows: Rows) -> Gains:
        nearer = self._similar(rows) - self._nearest
        return np.asarray(np.maximum(nearer, 0).sum(axis=1), dtype=np.float64)

    def take(self, row: int) -> None:
        """Choose a row: others are nearer to it, or stay with what they have."""
        self._nearest = np.maximum(self._nearest, self._similar(np.array([row]))[0])

    def _similar(self, rows: Rows) -> NDArray[np.float32]:
        cosine = self._vectors[rows] @ self._demand.T
        return np.asarray((1 + cosine) / 2, dtype=np.float32)


def clipped(counts: Unsigned, floor: int) -> Unsigned:
    """The tokens of each row and cell, [rows, cells], at most ``floor`` of them, in the smallest
    type that holds it: what a row gives past the floor is worth nothing."""
    flat = counts.reshape(len(counts), -1)
    dtype = np.min_scalar_type(min(floor, int(counts.max(initial=0))))
    found = np.empty(flat.shape, dtype=dtype)
    step = max(1, CHUNK // max(1, flat.shape[1]))
    for start in range(0, len(flat), step):
        found[start : start + step] = np.minimum(flat[start : start + step], floor)
    return found


def _lack(fed: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 - φ of 1 + t/h, in its place."""
    np.divide(np.float32(1), fed, out=fed)
    fed *= fed * fed
    return fed


def _by_parts(rows: Rows, width: int, gains: Callable[[Rows], Gains]) -> Gains:
    """The gains of some rows, so many at a time that what is worked on stays in a processor's
    cache, on two threads where there is much of it."""
    if len(rows) * width <= CHUNK:
        return gains(rows)
    step = max(1, min(CHUNK // width, -(-len(rows) // THREADS)))
    parts = [rows[start : start + step] for start in range(0, len(rows), step)]
    return np.concatenate(list(_threads().map(gains, parts)))


@cache
def _threads() -> ThreadPoolExecutor:
    """Kept between looks: one takes a few milliseconds, and there are thousands."""
    return ThreadPoolExecutor(THREADS, thread_name_prefix="selection")


def _directions(
    vectors: NDArray[np.floating[Any]], chance: np.random.Generator
) -> NDArray[np.float32]:
    """The rows' vectors with length 1 and at most 256 dimensions; a row without any stays 0."""
    found = vectors.astype(np.float32, copy=False)
    if found.shape[1] > DIMENSIONS:
        found = found @ chance.standard_normal((found.shape[1], DIMENSIONS), dtype=np.float32)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.maximum(lengths, np.float32(1e-12)), dtype=np.float32)

"""Rows of a pool that raise the worst-fed experts most, under a budget and quotas of tokens.

Greedy by gain a token: the row that adds most to the objective for its length comes next, until no
row fits. The gains found earlier are upper bounds of those of now, so only rows whose bound is
above the best gain found are looked at again ("accelerated greedy", Minoux 1978), some at a time.

What is known of it: greedy reaches 1 - 1/e of the best choice when rows cost the same (Nemhauser,
Wolsey and Fisher 1978); with costs the ratio rule keeps a constant part as long as no single row
is a large part of the budget (Sviridenko 2004; Lin and Bilmes 2010, "Multi-document summarization
via budgeted maximization of submodular functions"), and quotas over disjoint groups cost at most
a factor of two (Fisher, Nemhauser and Wolsey 1978). In a large pool each turn looks at a seeded
sample of the rows alone, which costs ε = 1 % of the best in expectation and makes the work
independent of how many rows are chosen ("Lazier than lazy greedy", Mirzasoleiman et al. 2015).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.coverage.objectives import Objective, Rows

FIRST_LOOK = 32
# Up to this many numbers (rows of the pool × what a look at one costs) every row is looked at.
EXACT_WORK = 50_000_000
EPSILON = 0.01


@dataclass(frozen=True)
class Purse:
    """What may be spent, in tokens: ``budget`` on all rows and ``quotas`` [groups] on the rows of
    each group. ``tokens`` and ``groups`` have an entry a row of the pool; a row of group -1 is
    never chosen. ``slices`` [groups] says which slice a group is of: their quotas together are
    what may be spent on the slice."""

    tokens: NDArray[np.int64]
    groups: NDArray[np.intp]
    quotas: NDArray[np.int64]
    slices: NDArray[np.intp]
    budget: int


@dataclass(frozen=True)
class Choice:
    """Rows in the order they were chosen, as positions in the pool, and what each added to the
    objective at its turn; 0 for rows that only fill the budget."""

    rows: NDArray[np.intp]
    gains: NDArray[np.float64]


def choose(objective: Objective, purse: Purse, order: Rows) -> Choice:
    """Choose rows until no row fits.

    The quotas of groups are kept first. Rows are whole, so each leaves something: it goes to the
    groups of the same slice, first to those that have no row yet, each of which passes its quota by
    less than a row. Only what a slice cannot spend goes to the others. Where no row adds anything
    any more, rows are taken in the ``order`` given (of all the pool's rows, drawn by a seed): the
    budget is filled with a random sample, not with the pool's first rows.
    """
    room = _Room(purse)
    picker = _Picker(objective, purse, order)
    rows: list[int] = []
    gains: list[float] = []
    for turn in _TURNS:
        while len(fitting := room.fitting(turn)):
            row, gain = picker.best(fitting, room.left)
            if gain <= 0:
                break
            picker.take(row)
            room.pay(row)
            rows.append(row)
            gains.append(gain)
        rows += room.fill(order, turn)
    return Choice(
        rows=np.array(rows, dtype=np.intp),
        gains=np.array(gains + [0.0] * (len(rows) - len(gains)), dtype=np.float64),
    )


def random_choice(purse: Purse, order: Rows) -> Choice:
    """Rows in the ``order`` given under the same budget and quotas: what a choice is held
    against."""
    room = _Room(purse)
    rows = [row for turn in _TURNS for row in room.fill(order, turn)]
    return Choice(np.array(rows, dtype=np.intp), np.zeros(len(rows)))


# What a row has to fit into, in the order in which they are tried.
_NONE = np.iinfo(np.int64).max
_Turn = Literal["quota", "first row", "slice", "budget"]
_TURNS: tuple[_Turn, ...] = ("quota", "first row", "slice", "budget")


class _Room:
    """What is left of the budget, of each slice and of each quota, and the rows still free."""

    def __init__(self, purse: Purse) -> None:
        self._purse = purse
        self.left = purse.budget
        self._quotas = purse.quotas.copy()
        self._slices = np.zeros(int(purse.slices.max(initial=-1)) + 1, dtype=np.int64)
        np.add.at(self._slices, purse.slices, purse.quotas)
        self._free = np.flatnonzero((purse.groups >= 0) & (purse.tokens > 0))
        self._shortest = np.full(len(purse.quotas), _NONE)
        np.minimum.at(self._shortest, purse.groups[self._free], purse.tokens[self._free])
        self._without = self._shortest < _NONE

    def fitting(self, turn: _Turn) -> Rows:
        """Free rows that fit, ascending."""
        fits = self._fits(self._free, turn)
        if turn == "budget":  # what does not fit in the last turn never will: it only shrinks
            self._free = self._free[fits]
            return self._free
        return self._free[fits]

    def pay(self, row: int) -> None:
        """Take a row out of the free ones and its tokens off."""
        length, group = int(self._purse.tokens[row]), self._purse.groups[row]
        self.left -= length
        self._quotas[group] -= length
        self._slices[self._purse.slices[group]] -= length
        self._without[group] = False
        self._free = self._free[self._free != row]

    def fill(self, order: Rows, turn: _Turn) -> list[int]:
        """Pay for rows in the order given, as long as one fits, and give them back."""
        taken = []
        is_free = np.zeros(len(self._purse.tokens), dtype=np.bool_)
        is_free[self.fitting(turn)] = True
        for row in order[is_free[order]].tolist():
            if self._fits(np.array([row]), turn)[0]:
                self.pay(row)
                taken.append(row)
        return taken

    def _fits(self, rows: Rows, turn: _Turn) -> NDArray[np.bool_]:
        longest = np.minimum(self._longest(turn), self.left)
        return np.asarray(self._purse.tokens[rows] <= longest[self._purse.groups[rows]])

    def _longest(self, turn: _Turn) -> NDArray[np.int64]:
        """The tokens a row of each group may have, [groups]."""
        if turn == "quota":
            return self._quotas
        if turn == "budget":
            return np.where(self._quotas > 0, self.left, 0)
        of_slice = self._slices[self._purse.slices]
        if turn == "slice":
            return np.where(self._quotas > 0, of_slice, 0)
        # An equal part of what the slice has left, or else the shortest row of all that wait, so
        # that as many groups as possible get one.
        waiting = self._without & (self._quotas > 0)
        count = np.bincount(self._purse.slices, waiting, len(self._slices)).astype(np.int64)
        shortest = np.full(len(self._slices), _NONE)
        np.minimum.at(shortest, self._purse.slices[waiting], self._shortest[waiting])
        part = np.maximum(self._slices // np.maximum(1, count), shortest)[self._purse.slices]
        return np.where(waiting, np.minimum(part, of_slice), 0)


class _Picker:
    """Finds the row of the largest gain a token with few looks at the objective."""

    def __init__(self, objective: Objective, purse: Purse, order: Rows) -> None:
        self._objective = objective
        self._tokens = purse.tokens
        self._bounds = np.full(len(purse.tokens), np.inf)
        self._seen = np.zeros(len(purse.tokens), dtype=np.int64)
        self._turn = 1
        self._samples = len(order) * objective.width > EXACT_WORK
        self._order = order
        self._place = np.empty(len(order), dtype=np.intp)
        self._place[order] = np.arange(len(order))
        self._next = 0
        self._spent = 0  # tokens of the rows chosen

    def best(self, rows: Rows, left: int) -> tuple[int, float]:
        """The best of some rows, or of a sample of them, and its gain; of equal ones the first."""
        if self._samples:
            rows = self._sample(rows, left)
        look = FIRST_LOOK
        while True:
            bounds = self._bounds[rows]
            first = int(rows[bounds.argmax()])
            if self._seen[first] == self._turn:
                return first, float(self._bounds[first] * self._tokens[first])
            self._look(self._promising(rows, bounds, look))
            look *= 2

    def take(self, row: int) -> None:
        """Choose a row; every bound is one of an earlier turn now."""
        self._objective.take(row)
        self._spent += int(self._tokens[row])
        self._turn += 1

    def _promising(self, rows: Rows, bounds: NDArray[np.float64], look: int) -> Rows:
        """The rows of the largest bounds that were not looked at in this turn, the very largest
        among them; all that were never looked at."""
        new = np.isinf(bounds)
        if new.any():
            return rows[new]
        top = rows if look >= len(rows) else rows[np.argpartition(-bounds, look)[:look]]
        stale = top[self._seen[top] != self._turn]
        return stale if len(stale) else rows[[bounds.argmax()]]

    def _look(self, rows: Rows) -> None:
        self._bounds[rows] = self._objective.gains(rows) / self._tokens[rows]
        self._seen[rows] = self._turn

    def _sample(self, rows: Rows, left: int) -> Rows:
        """The next rows in the seeded order, ascending: as many as the pool has for each row that
        can still be chosen, times ln(1/ε). Gain a token prefers short rows, so it is the rows
        chosen so far that say how many the rest of the budget pays for."""
        chosen = self._turn - 1
        length = self._spent / chosen if chosen else float(self._tokens[rows].mean())
        picks = max(1.0, left / length)
        size = math.ceil(len(rows) / picks * math.log(1 / EPSILON))
        if size >= len(rows):
            return rows
        is_there = np.zeros(len(self._order), dtype=np.bool_)
        is_there[self._place[rows]] = True
        places = np.flatnonzero(is_there)  # ascending, for much less than a sort
        start = int(np.searchsorted(places, self._next))
        taken = np.take(places, np.arange(start, start + size), mode="wrap")
        self._next = int(taken[-1]) + 1
        return np.sort(self._order[taken])

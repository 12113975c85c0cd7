"""Taking rows from strata so that each gets an equal part, as far as whole rows allow.

Lengths are tokens, or 1 for every row where a slice counts rows.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from app.calibration.pool import FacetColumn
from app.calibration.quotas import equally


def strata_of(
    rows: NDArray[np.intp], column: FacetColumn, values: Sequence[str]
) -> list[NDArray[np.intp]]:
    """The rows of each value, each in the order given."""
    codes = column.codes[rows]
    if len(column.values) < np.iinfo(np.int16).max:
        codes = codes.astype(np.int16)  # numpy sorts 16 bits by radix, five times as fast
    by_code = np.argsort(codes, kind="stable")
    code_of = {value: code for code, value in enumerate(column.values)}
    wanted = np.array([code_of.get(value, len(column.values)) for value in values], dtype=np.int32)
    first = np.searchsorted(codes, wanted, side="left", sorter=by_code)
    last = np.searchsorted(codes, wanted, side="right", sorter=by_code)
    return [rows[by_code[a:b]] for a, b in zip(first, last, strict=True)]


def pour(
    strata: Sequence[NDArray[np.intp]], amounts: NDArray[np.int64], budget: int
) -> list[NDArray[np.intp]]:
    """Rows of each stratum so that their amounts are as equal as whole rows allow, together at
    most ``budget``: equal quotas first, then a row to those with none, then row by row to the
    poorest."""
    lengths = [amounts[rows] for rows in strata]
    available = np.array([int(length.sum()) for length in lengths], dtype=np.int64)
    counts = [
        int(np.searchsorted(np.cumsum(length), quota, side="right"))
        for length, quota in zip(lengths, equally(budget, available), strict=True)
    ]
    left = budget - sum(int(n[:count].sum()) for n, count in zip(lengths, counts, strict=True))
    orders = [np.arange(len(rows)) for rows in strata]
    for stratum, position in _first_rows(lengths, counts, left):
        orders[stratum] = np.concatenate(([position], np.delete(orders[stratum], position)))
        lengths[stratum] = lengths[stratum][orders[stratum]]
        counts[stratum] = 1
        left -= int(lengths[stratum][0])
    _top_up(lengths, counts, left)
    return [rows[order[:count]] for rows, order, count in zip(strata, orders, counts, strict=True)]


def _first_rows(
    lengths: Sequence[NDArray[np.int64]], counts: Sequence[int], left: int
) -> Iterator[tuple[int, int]]:
    """A row for each stratum that has rows and got none, as (stratum, position), so that every
    value the sources have is fed where the budget allows.

    Their quota is less than their next row. Each takes the first row that is no longer than an
    equal part of what is left, or else its shortest; strata with the shortest rows come first,
    so that as many as possible are fed.
    """
    empty = [i for i, length in enumerate(lengths) if not counts[i] and len(length)]
    empty.sort(key=lambda i: (int(lengths[i].min()), i))
    for remaining, stratum in zip(range(len(empty), 0, -1), empty, strict=True):
        length = lengths[stratum]
        fitting = np.flatnonzero(length <= left // remaining)
        position = int(fitting[0]) if len(fitting) else int(length.argmin())
        if length[position] > left:
            return
        left -= int(length[position])
        yield stratum, position


def _top_up(lengths: Sequence[NDArray[np.int64]], counts: list[int], left: int) -> None:
    """Raise ``counts``, one row at a time: the stratum with the fewest tokens takes its next row,
    and is done when that does not fit in what is left."""
    queue = [
        (int(length[:count].sum()), stratum)
        for stratum, (length, count) in enumerate(zip(lengths, counts, strict=True))
    ]
    heapq.heapify(queue)
    while queue and left > 0:
        tokens, stratum = heapq.heappop(queue)
        length, count = lengths[stratum], counts[stratum]
        if count < len(length) and length[count] <= left:
            counts[stratum] += 1
            left -= int(length[count])
            heapq.heappush(queue, (tokens + int(length[count]), stratum))

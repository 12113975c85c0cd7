"""How long the rows of a set are, and what the maximum length cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from app.audit.report import Bin, Lengths

BINS = 24


def lengths_of(fed: Sequence[int], full: Sequence[int]) -> Lengths:
    """The lengths of rows in tokens, as they are fed and as they were before the cut."""
    lengths = np.asarray(fed, dtype=np.int64)
    cut = np.asarray(full, dtype=np.int64) - lengths
    if not len(lengths):
        return Lengths(
            shortest=0, p10=0, median=0, p90=0, p99=0, longest=0, mean=0.0, cut_rows=0,
            cut_tokens=0, longest_rows=0, longest_share=0.0, bins=[],
        )  # fmt: skip
    p10, median, p90, p99 = np.percentile(lengths, [10, 50, 90, 99]).round().astype(int)
    longest = max(1, round(len(lengths) / 100))
    return Lengths(
        shortest=int(lengths.min()),
        p10=p10,
        median=median,
        p90=p90,
        p99=p99,
        longest=int(lengths.max()),
        mean=float(lengths.mean()),
        cut_rows=int((cut > 0).sum()),
        cut_tokens=int(cut.sum()),
        longest_rows=longest,
        longest_share=float(np.sort(lengths)[-longest:].sum() / max(1, lengths.sum())),
        bins=list(_bins(lengths)),
    )


def _bins(lengths: NDArray[np.int64]) -> Iterator[Bin]:
    """A histogram over equal steps of a round width, from nothing to the longest row."""
    exact = int(lengths.max()) / BINS
    magnitude = 10 ** max(0, len(str(int(exact))) - 1)
    width = next(
        step * magnitude for step in (1, 2, 5, 10) if step * magnitude * BINS > lengths.max()
    )
    places = lengths // width
    for place in range(int(places.max()) + 1):
        inside = lengths[places == place]
        yield Bin(
            low=place * width,
            high=(place + 1) * width,
            rows=len(inside),
            tokens=int(inside.sum()),
        )

"""Signatures, groups and leaks of 100,000 rows: time and memory.

The rows are the starter corpus' words drawn anew, so that hardly two are alike, with near
duplicates planted among them: ``python -m bench.duplicates [rows]``.
"""

from __future__ import annotations

import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from app.calibration.duplicates import groups, leaks, signatures
from app.sources.starter_corpus import load_rows

T = TypeVar("T")
PLANTED = 0.02


def rows_of(count: int) -> Iterator[str]:
    """Texts of the corpus' length from shuffled lines; every fiftieth is nearly its neighbour."""
    texts = [row["text"] for row in load_rows(split=None)]
    words = [word for text in texts for word in text.split()]
    chance = random.Random(0)
    last = ""
    for number in range(count):
        if last and number % round(1 / PLANTED) == 0:
            yield last + " once more"
        else:
            length = len(texts[number % len(texts)].split())
            start = chance.randrange(len(words) - 40)
            last = " ".join(words[start : start + 20] + chance.choices(words, k=length))
            yield last


def timed(name: str, work: Callable[[], T]) -> T:
    """Do the work and print how long it took."""
    since = time.perf_counter()
    result = work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{name:<12} {time.perf_counter() - since:7.2f} s   peak {peak:5.2f} GB")
    return result


def main(count: int) -> None:
    """Measure and print."""
    timed("drawing", lambda: sum(len(text) for text in rows_of(count)))
    rows = timed("signatures", lambda: signatures(rows_of(count)))
    found = timed("groups", lambda: groups(rows))
    print(f"{(found != np.arange(count)).sum():,} of {count:,} rows are duplicates")
    part = count * 85 // 100
    print(f"{len(timed('leaks', lambda: leaks(rows[:part], rows[part:]))):,} leaks")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)

"""How often detection finds what the starter corpus' rows are labelled with.

``python -m bench.detection [--rows N]``: for each label the rows that are found right, not told
apart from it, found wrong and unknown, and what the wrong ones were taken for; then the time. The
labels are those of the files the passages were cut from. The marks of
``app/detection/programming_marks.py`` were written with this corpus at hand, so its figures are
better than those of code from elsewhere.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict
from typing import Any

from app.detection.content import Found, detect
from app.sources.starter_corpus import load_rows

OUTCOMES = ("right", "not told apart", "wrong", "unknown")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, help="only so many rows, evenly spread")
    wanted = parser.parse_args().rows
    rows = load_rows(split=None)
    rows = rows[:: max(1, len(rows) // wanted)] if wanted else rows
    since, cpu = time.perf_counter(), time.process_time()
    found = [detect(row["text"]) for row in rows]
    seconds, used = time.perf_counter() - since, time.process_time() - cpu
    for facet in ("spoken_language", "programming_language"):
        report(facet, rows, found)
    print(f"\n{len(rows):,} rows: {seconds:.1f} s, {1e3 * used / len(rows):.1f} ms of CPU a row")


def report(facet: str, rows: list[dict[str, Any]], found: list[tuple[Found, ...]]) -> None:
    """A table of one facet's labels."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    taken: dict[str, Counter[str]] = defaultdict(Counter)
    for row, parts in zip(rows, found, strict=True):
        if row[facet]:
            outcome, value = judged(row[facet], facet, parts)
            counts[row[facet]][outcome] += 1
            if outcome == "wrong":
                taken[row[facet]][value] += 1
    print(f"\n| {facet.replace('_', ' ')} | rows | {' | '.join(OUTCOMES)} | wrong ones taken for |")
    print(f"|---|---:|{'---:|' * len(OUTCOMES)}---|")
    for label, count in [*sorted(counts.items()), ("all", sum(counts.values(), Counter()))]:
        figures = " | ".join(str(count[outcome]) for outcome in OUTCOMES)
        wrong = ", ".join(f"{value} {times}" for value, times in taken[label].most_common(4))
        print(f"| {label} | {count.total()} | {figures} | {wrong} |")


def judged(label: str, facet: str, parts: tuple[Found, ...]) -> tuple[str, str]:
    """How a row's largest part compares with its label, and what that part was found to be."""
    largest = max(parts, key=lambda part: part.end - part.start)
    value = getattr(largest, facet)
    if value == label:
        return "right", value
    if facet == "programming_language" and label in largest.could_be:
        return "not told apart", value or ""
    other = largest.programming_language or largest.spoken_language
    if value or (other and largest.kind != "data"):
        return "wrong", value or f"{largest.kind} in {other}"
    return "unknown", ""


if __name__ == "__main__":
    main()

"""The audit of many rows: time and memory, without detection, which is kept by text.

``python -m bench.audit [rows]``: rows of the starter corpus with words of their own at their end,
so that they are no duplicates, a fiftieth planted ones. What a text is is looked up by its
beginning; detection itself takes 12.6 ms of CPU a text (``bench.detection``), once for each.
"""

from __future__ import annotations

import random
import resource
import sys
import time
from collections.abc import Iterator
from functools import cache

from app.audit.audit import audit
from app.audit.row import AuditedRow, AuditedTurn
from app.detection.content import Found, detect
from app.facets import Facet
from app.sources.starter_corpus import load_rows

BEGINNING = 200
PLANTED = 50


@cache
def _of_beginning(text: str) -> Found:
    found = detect(text)
    return found[0] if found else Found(0, 1, "prose")


def looked_up(text: str) -> tuple[Found, ...]:
    """What the beginning of a text is, for the whole of it."""
    one = _of_beginning(text[:BEGINNING])
    return (Found(0, len(text), one.kind, one.script, one.spoken_language,
                  one.programming_language, one.could_be),)  # fmt: skip


def rows_of(count: int) -> Iterator[AuditedRow]:
    """Rows with a request and a passage that hardly another has."""
    texts = load_rows()
    words = [word for row in texts for word in row["text"].split()]
    chance = random.Random(0)
    for number in range(count):
        row = texts[number % len(texts)]
        if number % PLANTED or not number:
            text = row["text"][:BEGINNING] + " " + " ".join(chance.choices(words, k=120))
        answer = AuditedTurn("assistant", text, len(text) // 4)
        request = AuditedTurn("user", f"Write about {row['domain']} in 3 parts.", 8)
        yield AuditedRow(
            row_id=f"row-{number}",
            source="bench",
            slice=row["domain"],
            tokens=answer.tokens + 12,
            full_tokens=answer.tokens + 12,
            turns=(request, answer),
            labels={facet: row[facet.value] for facet in Facet},
        )


def main(count: int) -> None:
    """Measure and print."""
    for row in load_rows():
        _of_beginning(row["text"][:BEGINNING])
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    since, cpu = time.perf_counter(), time.process_time()
    report = audit(rows_of(count), looked_up)
    seconds, used = time.perf_counter() - since, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{count:,} rows, {report.tokens:,} tokens: {seconds:.1f} s, {used:.1f} s of CPU, memory "
        f"{held:.2f} GB before and {peak:.2f} GB at most, {report.duplicate_rows:,} duplicates"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)

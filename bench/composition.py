"""How fast a set is composed, indexed and built: ``python -m bench.composition``.

- **totals**: 50 slices over 100,000 indexed rows, as at every key press of the composer.
- **index**: 100,000 rows of the starter kind in one pass, against the tokenizer alone on the same
  rendered texts.
- **build**: 590 rows of 8,192 tokens from local Parquet, the tokenizer's part and the peak memory:
  cold (no index kept, so every row of the source is tokenized) and warm (with the index that the
  cold one left), out of 1,200 rows and out of four times as many. Each in a process of its own.

All process CPU time, since the machine may have other work. Rows are the starter corpus's passages,
joined and shuffled; the tokenizer and chat template are the demo model's.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.calibration.building import build_set
from app.calibration.index import load_index
from app.calibration.spec import SetSpec
from app.calibration.totals import totals
from app.rendering.renderer import Renderer
from app.rendering.tokenizer import ModelTokenizer
from app.settings import ROOT
from app.sources.entry import FolderOrigin, SourceEntry
from app.sources.rows import iterate_rows, load_rows, messages_of, rows_file, rows_files
from app.sources.starter_corpus import PACKS
from app.sources.store import Row, write_revision
from tests.app.calibration.large_index import fifty_slices, large_index

DEMO_MODEL = ROOT / "demo" / "model"
ROWS, LENGTH = 590, 8192
LONG_ROW = 26_000  # characters; more than 8,192 tokens of the demo's tokenizer


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", choices=("totals", "index", "build"))
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the index")
    parser.add_argument("--build-in", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.build_in:
        sys.stdout.write(json.dumps(_build(given.build_in)))
        return
    if given.only in (None, "totals"):
        _totals(given.rows)
    if given.only in (None, "index"):
        _index(given.rows)
    if given.only in (None, "build"):
        for factor in (1, 4):
            _cold_and_warm(1_200 * factor)


def _totals(rows: int) -> None:
    index, spec = large_index(rows), fifty_slices()
    seconds = []
    for number in range(11):
        # a weight moves, as under a slider
        first = spec.slices[0].model_copy(update={"weight": number + 1.0})
        moved = spec.model_copy(update={"slices": (first, *spec.slices[1:])})
        started = time.process_time()
        totals(moved, index)
        seconds.append(time.process_time() - started)
    _say("totals", f"{len(spec.slices)} slices over {rows:,} rows",
         median_ms=f"{1000 * statistics.median(seconds[1:]):.0f}",
         slowest_ms=f"{1000 * max(seconds[1:]):.0f}")  # fmt: skip


def _index(rows: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        _write_source(home / "sources", _passages(rows))
        file = rows_file("bench", home / "sources")
        renderer = Renderer.of_model(DEMO_MODEL)
        started = time.process_time()
        load_index([file], renderer, home / "index")
        whole = time.process_time() - started
        alone = 0.0
        for batch in iterate_rows(file):
            texts = [renderer.template.render(messages_of(row)) for row in batch]
            started = time.process_time()
            renderer.tokenizer.count(texts)
            alone += time.process_time() - started
    _say("index", f"{rows:,} rows", seconds=f"{whole:.1f}", tokenizer_alone=f"{alone:.1f}",
         share_of_its_speed=f"{alone / whole:.0%}")  # fmt: skip


def _cold_and_warm(rows: int) -> None:
    """The same build twice, each in a process whose peak memory is then the build's; the second
    finds the index that the first left."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        _write_source(home / "sources", _passages(rows, LONG_ROW))
        size = rows_file("bench", home / "sources").path.stat().st_size
        for state in ("cold", "warm"):
            shutil.rmtree(home / "sets", ignore_errors=True)
            done = subprocess.run(
                [sys.executable, "-m", "bench.composition", "--build-in", place],
                stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
            found = json.loads(done.stdout)
            of = f"{found['rows']} rows of {LENGTH:,} tokens out of {rows:,} ({size / 1e6:.0f} MB)"
            _say(f"build, {state}", of,
                 seconds=f"{found['seconds']:.1f}", tokenizer=f"{found['tokenizer']:.1f}",
                 tokenizers_part=f"{found['tokenizer'] / found['seconds']:.0%}",
                 peak_mb=f"{found['peak_mb']:.0f}")  # fmt: skip


def _build(home: Path) -> dict[str, Any]:
    with _timed_tokenizer() as spent:
        started = time.process_time()
        built = build_set(_spec(), tokenizer_dir=DEMO_MODEL, sets_dir=home / "sets")
        seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {"rows": built.rows, "seconds": seconds, "tokenizer": sum(spent), "peak_mb": peak}


def _spec() -> SetSpec:
    part = {"name": "all", "rows": ROWS}
    return SetSpec.model_validate(
        {"name": "bench", "slices": [part], "max_length": LENGTH, "sources": ["bench"]}
    )


@contextmanager
def _timed_tokenizer() -> Iterator[list[float]]:
    """The CPU seconds of every call of the tokenizer, which encodes rows and counts them."""
    spent: list[float] = []
    plain = {name: getattr(ModelTokenizer, name) for name in ("encode", "count")}
    for name, method in plain.items():
        setattr(ModelTokenizer, name, _timed(method, spent))
    try:
        yield spent
    finally:
        for name, method in plain.items():
            setattr(ModelTokenizer, name, method)


def _timed(method: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    def timed(*given: Any, **named: Any) -> Any:
        started = time.process_time()
        result = method(*given, **named)
        spent.append(time.process_time() - started)
        return result

    return timed


def _passages(rows: int, characters: int | None = None) -> Iterator[str]:
    """Texts of the corpus's kind, each other than the last: a passage with the end of another, or
    as many as make ``characters``."""
    texts = [row["text"] for row in load_rows(rows_files(PACKS), split=None)]
    chance = random.Random(3)
    for number in range(rows):
        if characters is None:
            yield f"{chance.choice(texts)}\n{chance.choice(texts)[-40:]} {number}"
            continue
        joined = f"{number}"
        while len(joined) < characters:
            joined = f"{joined}\n{chance.choice(texts)}"
        yield joined


def _write_source(sources_dir: Path, texts: Iterator[str]) -> None:
    entry = SourceEntry(name="bench", origin=FolderOrigin(path=Path("/bench")))
    rows = (Row(number, None, text) for number, text in enumerate(texts, start=1))
    write_revision(entry, "b" * 40, rows, sources_dir)


def _say(what: str, of: str, **figures: str) -> None:
    said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())
    sys.stdout.write(f"{what}: {of}: {said}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

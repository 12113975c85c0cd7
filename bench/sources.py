"""How fast an uploaded file becomes rows, and that memory does not grow with the file.

``python -m bench.sources``: conversations of about 2 kB as JSON lines and as Parquet, 5,000 and
40,000 rows, each in a process of its own; rows and megabytes a CPU second, and the largest memory
of the process.
"""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from app.settings import Settings
from app.sources.entry import SourceEntry, UploadOrigin
from app.sources.fetching import fetch_rows
from app.sources.local_files import original

SIZES = (5_000, 40_000)
KINDS = ("jsonl", "parquet")


def main() -> None:
    """Print a line for each kind and size."""
    if len(sys.argv) > 1:
        convert(sys.argv[1], int(sys.argv[2]))
        return
    for kind in KINDS:
        for size in SIZES:
            subprocess.run([sys.executable, "-m", "bench.sources", kind, str(size)], check=True)


def convert(kind: str, rows: int) -> None:
    """Make a file of so many rows, convert it, and print what that took."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder))
        draft = Path(folder) / "draft"
        write(draft, kind, rows)
        sha256 = hashlib.sha256(draft.read_bytes()).hexdigest()
        megabytes = draft.stat().st_size / 1e6
        place = original("bench", sha256, settings.sources_dir)
        place.parent.mkdir(parents=True)
        draft.rename(place)
        entry = SourceEntry(
            name="bench",
            origin=UploadOrigin(file=f"rows.{kind}", sha256=sha256),
            columns=("messages",),
            formatter="chat_completion",
        )
        start = time.process_time()
        file = fetch_rows(entry, settings.sources_dir, settings=settings)
        seconds = time.process_time() - start
        assert file.rows == rows
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(
        f"{kind:8} {rows:7,} rows  {rows / seconds:8,.0f} rows a CPU second  "
        f"{megabytes / seconds:6.1f} MB a CPU second  {largest:6,.0f} MB at most"
    )


def write(place: Path, kind: str, rows: int) -> None:
    """A file of conversations, a thousand at a time."""
    batches = (made(start, min(1000, rows - start)) for start in range(0, rows, 1000))
    if kind == "jsonl":
        with place.open("w") as lines:
            for batch in batches:
                lines.writelines(json.dumps(row) + "\n" for row in batch)
        return
    first = pa.Table.from_pylist(made(0, 1))
    with pq.ParquetWriter(place, first.schema) as writer:
        for batch in batches:
            writer.write_table(pa.Table.from_pylist(batch, schema=first.schema))


def made(start: int, count: int) -> list[dict[str, object]]:
    """Conversations of four turns and about two thousand characters."""
    words = "The quick brown fox jumps over the lazy dog. " * 11
    return [
        {
            "messages": [
                {"role": role, "content": f"{number} {turn}: {words}"}
                for turn, role in enumerate(("user", "assistant") * 2)
            ]
        }
        for number in range(start, start + count)
    ]


if __name__ == "__main__":
    main()

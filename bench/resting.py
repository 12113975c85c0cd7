"""A model larger than memory, quantized in a container that has less, against one that has enough.

``python -m bench.resting`` (as root: it makes a memory group of the kernel, version 1 or 2). A
MiniMax-M2 of 8 layers and 64 experts, 0.8 GB in bfloat16 and 1.6 GB as it is computed on a CPU, is
quantized by the command line without a limit and in a group of 1.6 GB. Files are compared by
SHA-256. Swap is not counted in a group's limit: run it where there is none.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from bench.preflight import EVERY_SECONDS, Shape, answer, command, own_bytes, prepare

MODEL = {
    "num_hidden_layers": 8, "hidden_size": 512, "intermediate_size": 512, "num_local_experts": 64,
    "num_experts_per_tok": 4, "max_position_embeddings": 2_048, "head_dim": 64,
}  # fmt: skip
FAST = {"statistics": "routed", "search": "fast"}
SHAPE = Shape(MODEL, 8, 500, dtype=torch.bfloat16, recipe=FAST)
LIMIT = 1_600_000_000
JOIN = """import os, sys, pathlib
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])"""


@contextmanager
def memory_group(limit: int) -> Iterator[Path]:
    """The file that a process writes its number to, to have no more memory than ``limit``."""
    root, name = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
    if not root.is_dir():
        root, name = root.parent, "memory.max"
    group = root / f"calibrant-bench-{os.getpid()}"
    group.mkdir()
    try:
        (group / name).write_text(str(limit))
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


def run(folder: Path, model: Path, recipe: Path, out: Path, joins: Path | None) -> list[str]:
    """Quantize; a line of the table: time, memory of its own, files."""
    words = command(
        "quantize", "--model", model, "--set", folder / "rows.jsonl", "--recipe", recipe,
        "--held-out", folder / "held.jsonl", "--out", out, "--threads", 1,
    )  # fmt: skip
    if joins is not None:
        words = [sys.executable, "-c", JOIN, str(joins), *words]
    since, most = time.monotonic(), 0
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    while process.poll() is None:
        most = max(most, own_bytes(process.pid))
        time.sleep(EVERY_SECONDS)
    found = answer(process, folder)
    wall = time.monotonic() - since
    return [f"{wall:,.0f}", f"{found['cpu_seconds']:,.0f}", f"{most / 1e9:.2f}"]


def digests(checkpoint: Path) -> dict[str, str]:
    """Every file's SHA-256."""
    files = sorted(file for file in checkpoint.iterdir() if file.is_file())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="calibrant-bench-") as given:
        folder = Path(given).resolve()
        model, recipe = prepare(SHAPE, folder)
        print("| memory | s | CPU s | of its own, GB | files |\n|---|---:|---:|---:|---|")
        plain = run(folder, model, recipe, folder / "plain", None)
        print(f"| enough | {' | '.join(plain)} | |", flush=True)
        with memory_group(LIMIT) as joins:
            small = run(folder, model, recipe, folder / "small", joins)
        same = digests(folder / "plain") == digests(folder / "small")
        verdict = "all equal" if same else "DIFFERENT"
        print(f"| {LIMIT / 1e9:.1f} GB | {' | '.join(small)} | {verdict} |")


if __name__ == "__main__":
    main()

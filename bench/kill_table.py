"""Kill a quantize run at random moments, go on, and compare every file with an uninterrupted run.

``python -m bench.kill_table``. A tiny MiniMax-M2 (4 layers, 8 experts) is quantized by the command
line in a process of its own. For each of 20 seeded moments between the start and the time the
uninterrupted run took, the process group gets SIGKILL, then ``--resume`` runs to the end. The
table gives the moment, what had been finished, and whether the SHA-256 of every file of the
checkpoint is the uninterrupted run's.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from app.jobs.events import parse
from tests.engine import tiny_models
from workers.engine.checkpoints.manifest import MANIFEST
from workers.engine.models.provenance import described

LAYERS = 4


def command(folder: Path, out: Path) -> list[str]:
    """The quantize command of every run."""
    program = [sys.executable, "-m", "app.cli", "quantize"]
    given = ["--model", folder / "model", "--set", folder / "rows.jsonl", "--out", out]
    return [*program, *map(str, given), "--threads", "1", "--resume", "--json"]


def run(folder: Path, out: Path, kill_after: float | None = None) -> float:
    """Run once, killed after so many seconds if it is still there; the seconds it ran."""
    since = time.monotonic()
    process = subprocess.Popen(
        command(folder, out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        _, said = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return time.monotonic() - since
    if process.returncode != 0:
        raise RuntimeError(said.decode(errors="replace"))
    return time.monotonic() - since


def hashes(directory: Path) -> dict[str, str]:
    """The SHA-256 of every file of a checkpoint."""
    return {file.name: described(file).sha256 for file in sorted(directory.iterdir())}


def last_words(out: Path) -> str:
    """The last event before the kill, in words."""
    stream = out.with_name(f"{out.name}.events.jsonl")
    if not stream.is_file():
        return "nothing said yet"
    lines = [line for line in stream.read_bytes().split(b"\n")[:-1] if line]
    if not lines:
        return "nothing said yet"
    event = parse(lines[-1])
    step, layer = getattr(event, "step", None), getattr(event, "layer", None)
    where = f", layer {layer}" if layer is not None else ""
    return f"{event.type}{f' of {step.value}' if step else ''}{where}"


def main() -> None:
    """Print the kill table in Markdown; exits 1 when a file differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    moments = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as name:
        wrong = kill_and_resume(Path(name), chosen.kills, moments)
    raise SystemExit(1 if wrong else 0)


def kill_and_resume(folder: Path, kills: int, moments: random.Random) -> int:
    """Print the table; how many of the resumed checkpoints differ."""
    config = tiny_models.minimax_m2(num_hidden_layers=LAYERS)
    tiny_models.save(tiny_models.tiny_model(config, torch.bfloat16), folder / "model")
    tiny_models.write_jsonl(folder / "rows.jsonl", rows=600, length=200)
    seconds = run(folder, folder / "whole")
    expected = hashes(folder / "whole")
    print(f"Uninterrupted: {seconds:.1f} s, {len(expected)} files.\n")
    print("| kill | after s | last event | layers kept | resumed in s | files equal |")
    print("|---:|---:|---|---:|---:|---|")
    wrong = 0
    for number in range(1, kills + 1):
        out = folder / f"killed-{number}"
        after = moments.uniform(0.2, seconds)
        run(folder, out, kill_after=after)
        said = last_words(out)
        kept = len(list((folder / f".{out.name}.calibrant").glob("layers/layer-*.json")))
        is_whole = not kept and (out / MANIFEST).is_file()  # it came to its end before the kill
        again = 0.0 if is_whole else run(folder, out)
        equal = hashes(out) == expected
        wrong += not equal
        print(
            f"| {number} | {after:.1f} | {said} | {max(0, kept - 1)} | {again:.1f} "
            f"| {'all' if equal else 'NO'} |",
            flush=True,
        )
    return wrong


if __name__ == "__main__":
    main()

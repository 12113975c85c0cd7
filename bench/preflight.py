"""What preflight says a job will need, against what the job then takes.

``python -m bench.preflight``. Tiny MiniMax-M2s of several shapes and the demo model are quantized
by the command line, one after the other, in processes of their own. Memory is the most that the
process held of its own (``RssAnon``, looked at twenty times a second: pages of mapped files are
given back when somebody needs them), disk the most the job's directory held, time the job's CPU
time on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from app.recipes.schema import PRESETS, Recipe
from tests.engine import tiny_models

DEMO = Path("demo/model")
EVERY_SECONDS = 0.05


@dataclass(frozen=True)
class Shape:
    """A job: what is changed in the tiny model (None: the demo model), its type, how many rows of
    how many bytes, and what is changed in the recipe."""

    changes: dict[str, Any] | None
    rows: int
    length: int
    dtype: torch.dtype = torch.bfloat16
    recipe: dict[str, Any] = field(default_factory=dict)


WIDE = {
    "hidden_size": 512, "intermediate_size": 256, "num_local_experts": 32, "num_experts_per_tok": 4,
    "max_position_embeddings": 2_048, "head_dim": 64,
}  # fmt: skip
LONG = {
    "hidden_size": 256, "intermediate_size": 128, "max_position_embeddings": 8_192,
    "num_attention_heads": 8, "head_dim": 64,
}  # fmt: skip
ROUTED = {"statistics": "routed"}
SHAPES = {
    "demo model, 24 rows of 1,500": Shape(None, 24, 1_500),
    "demo model, 300 rows of 50": Shape(None, 300, 50),
    "hidden 512, 32 experts": Shape(WIDE, 12, 500),
    "the same, routed": Shape(WIDE, 12, 500, recipe=ROUTED),
    "the same, fast": Shape(WIDE, 12, 500, recipe={**ROUTED, "search": "fast"}),
    "the same from float32": Shape(WIDE, 12, 500, dtype=torch.float32),
    "rows of 4,000": Shape(LONG, 4, 4_000, recipe=ROUTED),
    "rows of 8,000": Shape(LONG, 2, 8_000, recipe=ROUTED),
    "vocabulary of 200,000": Shape({**LONG, "vocab_size": 200_000}, 8, 500),
}


def prepare(shape: Shape, folder: Path) -> tuple[Path, Path]:
    """The model, and the recipe's file; the rows are beside it."""
    model = DEMO
    if shape.changes is not None:
        config = tiny_models.minimax_m2(**shape.changes)
        model = tiny_models.save(tiny_models.tiny_model(config, shape.dtype), folder / "model")
    tiny_models.write_jsonl(folder / "rows.jsonl", shape.rows, shape.length)
    tiny_models.write_jsonl(folder / "held.jsonl", max(2, shape.rows // 5), shape.length, seed=1)
    preset = PRESETS["experts-w4a16-g32"].model_dump(mode="json")
    recipe = Recipe.model_validate({**preset, **shape.recipe})
    file = folder / "recipe.yaml"
    file.write_text(json.dumps(recipe.model_dump(mode="json")), encoding="utf-8")
    return model, file


def command(*words: object) -> list[str]:
    """A command of ours whose answer is JSON."""
    return [sys.executable, "-m", "app.cli", *map(str, words), "--json"]


def answer(process: subprocess.Popen[bytes], folder: Path) -> Any:
    """The JSON document of a command that succeeded."""
    said, _ = process.communicate()
    if process.returncode != 0:
        raise RuntimeError((folder / "log.txt").read_text(encoding="utf-8")[-2_000:])
    return json.loads(said)


def started(words: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """The command, its log in a file so that it never waits for a reader."""
    with (folder / "log.txt").open("wb") as log:
        return subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )


def own_bytes(pid: int) -> int:
    """Memory of a process that is no file's."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(1_024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def held_by(folder: Path) -> int:
    """The bytes of a folder's files, hidden ones and those being written too."""
    sizes = 0
    for file in folder.rglob("*"):
        try:
            sizes += file.stat().st_size if file.is_file() else 0
        except OSError:
            continue
    return sizes


def line_of(name: str, shape: Shape) -> str:
    """A line of the table: what was foretold and what was taken."""
    with tempfile.TemporaryDirectory(prefix="calibrant-bench-") as given:
        folder = Path(given)
        model, recipe = prepare(shape, folder)
        about = ("--model", model, "--set", folder / "rows.jsonl", "--recipe", recipe)
        foretold = answer(started(command("preflight", *about), folder), folder)
        place = folder / "place"
        place.mkdir()
        job = command("quantize", *about, "--held-out", folder / "held.jsonl",
                      "--out", place / "checkpoint", "--threads", 1)  # fmt: skip
        process = started(job, folder)
        memory = disk = 0
        while process.poll() is None:
            memory = max(memory, own_bytes(process.pid))
            disk = max(disk, held_by(place))
            time.sleep(EVERY_SECONDS)
        taken = answer(process, folder)
    cells = [f"{foretold['tokens']:,}"]
    for said, found, unit, digits in (
        (foretold["ram_bytes"], memory, 1e9, 2),
        (foretold["disk_bytes"], disk, 1e6, 1),
        (foretold["seconds"], taken["cpu_seconds"], 1, 0),
    ):
        cells += [
            f"{said / unit:,.{digits}f}",
            f"{found / unit:,.{digits}f}",
            f"{said / found:.2f}",
        ]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="Shapes whose name has this in it.")
    wanted = parser.parse_args().only
    print(
        "| job | tokens | RAM said, GB | taken | said ÷ taken | disk said, MB | taken "
        "| said ÷ taken | s said | taken | said ÷ taken |"
    )
    print("|---|" + "---:|" * 10)
    for name, shape in SHAPES.items():
        if wanted in name:
            print(line_of(name, shape), flush=True)


if __name__ == "__main__":
    main()

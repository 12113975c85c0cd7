"""Train the bundled demo model from scratch, measure it, and write ``demo/model/``.

    python -m scripts.train_demo_model [--tokens N] [--seed S] [--out DIR] [--packs PACK ...]

The calibration part of the corpus packs is the training text; the held-out part is read
only to measure. The run is defined by its seed and its number of tokens, never by the clock.
``--measure-only`` measures and describes the checkpoint that is already in the folder.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from app.sources.starter_corpus import PACKS, load_rows
from scripts.demo_model.architecture import (
    MAX_TOKENS,
    VOCABULARY,
    demo_config,
    new_model,
    round_to_checkpoint,
)
from scripts.demo_model.batches import training_batches
from scripts.demo_model.card import card_of
from scripts.demo_model.measuring import measure
from scripts.demo_model.tokenizer import BEGIN, END, PAD, train_tokenizer
from scripts.demo_model.training import Schedule, train

MODEL_DIR = Path(__file__).resolve().parents[1] / "demo" / "model"
MEASUREMENTS = "measurements.json"
# A list of numbers stands on one line, so that a matrix reads as one.
NUMBERS = re.compile(r"\[[\s\d.,e+-]+\]")


def make_checkpoint(
    folder: Path, schedule: Schedule, seed: int, packs: Sequence[str] = PACKS
) -> dict[str, Any]:
    """Train tokenizer and model, save them in the folder, and return what the run was."""
    rows = load_rows(packs, split="calibration")
    tokenizer = train_tokenizer((row["text"] for row in rows), VOCABULARY, MAX_TOKENS)
    ids = tokenizer.get_vocab()
    config = demo_config(pad=ids[PAD], begin=ids[BEGIN], end=ids[END])
    model = new_model(config, seed)
    batches = training_batches(rows, tokenizer, schedule.batch_tokens, seed)
    taken = train(model, batches, schedule)
    round_to_checkpoint(model)
    model.generation_config.do_sample = True
    model.generation_config.temperature = 0.8
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(folder)
    return {
        "seed": seed,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "packs": list(packs),
        "rows": len(rows),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "schedule": asdict(schedule),
        **taken,
    }


def write_measurements(folder: Path, measurements: dict[str, Any]) -> None:
    """Write the raw numbers, one JSON document."""
    text = json.dumps(measurements, indent=1, ensure_ascii=False)
    text = NUMBERS.sub(lambda listed: " ".join(listed[0].split()), text)
    (folder / MEASUREMENTS).write_text(text + "\n", encoding="utf-8")


def describe(folder: Path) -> None:
    """Measure the saved checkpoint and write its measurements and its card beside it."""
    run: dict[str, Any] = json.loads((folder / MEASUREMENTS).read_text(encoding="utf-8"))["run"]
    held_out = load_rows(run["packs"], split="held_out")
    seen = load_rows(run["packs"], split="calibration")
    measurements = {"run": run, **measure(folder, held_out, seen, run["seed"])}
    write_measurements(folder, measurements)
    (folder / "README.md").write_text(card_of(measurements), encoding="utf-8")


def main(
    tokens: Annotated[int, typer.Option(help="Tokens to train on.")] = 5_200_000,
    seed: Annotated[int, typer.Option(help="Of weights, batches and order.")] = 20260,
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.")] = MODEL_DIR,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    packs: Annotated[list[str], typer.Option(help="Corpus packs to train on.")] = list(PACKS),  # noqa: B006
    measure_only: Annotated[bool, typer.Option(help="Train nothing.")] = False,
) -> None:
    """Train, save, measure and describe the demo model."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    if measure_only:
        describe(out)
        return
    beside = out.with_name(f"{out.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    run = make_checkpoint(beside, Schedule(tokens=tokens), seed, packs)
    write_measurements(beside, {"run": run})
    describe(beside)
    shutil.rmtree(out, ignore_errors=True)
    beside.rename(out)


if __name__ == "__main__":
    typer.run(main)

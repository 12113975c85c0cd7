"""What reading a large pool's profile takes: 62 layers of 256 experts, counts and router weight.

``python -m bench.profiles [--rows 20000]``. Memory is what the process itself holds (RssAnon):
pages of the mapped file are the system's and given back when others need room.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from app.coverage.heatmap import heatmap
from app.coverage.profile import FACET_COLUMNS, Profile

LAYERS, EXPERTS, TOP_K, LANGUAGES = 62, 256, 8, 60


def write_profile(file: Path, rows: int) -> None:
    """A profile as the engine writes it, of seeded counts."""
    chance = np.random.default_rng(0)
    counts = chance.integers(0, 20, (rows, LAYERS, EXPERTS), dtype=np.uint16)
    languages = np.array([f"language {row % LANGUAGES}" for row in range(rows)])
    profile = Profile(
        counts=counts,
        mass=(counts / TOP_K).astype(np.float32),
        layers=np.arange(LAYERS),
        row_ids=np.array([f"{row:06}" for row in range(rows)]),
        tokens=np.full(rows, 300),
        top_k=TOP_K,
        facets=dict.fromkeys(FACET_COLUMNS, languages),
    )
    with file.open("wb") as stream:
        profile.save(stream)


def held() -> float:
    """GB this process holds beside mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) / 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "coverage.npz"
        write_profile(file, rows)
        print(f"{rows:,} rows × {LAYERS * EXPERTS:,} experts, {file.stat().st_size / 1e9:.2f} GB")
        before = held()
        profile = Profile.load(file)

        def filtered() -> object:
            return profile.where("programming_language", "language 3").layer_mass

        steps: dict[str, Callable[[], object]] = {
            "load": lambda: Profile.load(file),
            "heatmap": lambda: heatmap(profile),
            "heatmap again": lambda: heatmap(profile),
            "router weight of one language": filtered,
        }
        print("| step | CPU seconds | GB held after it |\n|---|---:|---:|")
        for name, step in steps.items():
            began = time.process_time()
            step()
            print(f"| {name} | {time.process_time() - began:.2f} | {held() - before:.2f} |")


if __name__ == "__main__":
    main()

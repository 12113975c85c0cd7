"""How soon the pages of quality answer on an installation with a hundred jobs.

``python -m bench.comparison [--jobs 100]``. Jobs and their artifacts are seeded ones of the tests
(six layers of 32 experts, 140 held-out rows, 13 slices); each page is asked for some times in this
process, without a network, and the median is printed.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from fastapi.testclient import TestClient

from app.comparison.paired import compare_rows
from app.database import migrate
from app.main import create_app
from app.quality.evaluated_rows import EvaluatedRows
from app.settings import Settings
from tests.app.quality.evaluated import rows_of
from tests.seed import second_job, seed

TIMES = 5


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100)
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(data_dir=Path(directory), assets="local")
        migrate(settings)
        seeded = seed(settings)
        others = [second_job(settings, seeded) for _ in range(arguments.jobs - 6)]
        client = TestClient(create_app(settings), base_url="http://127.0.0.1")
        first = seeded.jobs["succeeded"]
        pages = {
            "jobs": "/jobs",
            "checkpoints": "/checkpoints",
            "compare, choosing": "/compare",
            "compare two": f"/compare?jobs={first},{others[0]}",
            "compare six": f"/compare?jobs={','.join([first, *others[:5]])}",
            "errors of a job": f"/jobs/{first}/errors",
            "model card": f"/checkpoints/{first}/README.md",
        }
        for name, address in pages.items():
            print(f"{name:<20}{_median(client, address) * 1000:>8.0f} ms")
    since = time.perf_counter()
    compare_rows(*_large())
    seconds = time.perf_counter() - since
    print(f"{'2,000 rows, 300 slices':<24}{seconds * 1000:>4.0f} ms")


def _median(client: TestClient, address: str) -> float:
    times = []
    for _ in range(TIMES):
        since = time.perf_counter()
        answer = client.get(address, headers={"accept": "text/html"})
        assert answer.status_code == 200, address
        times.append(time.perf_counter() - since)
    return statistics.median(times)


def _large() -> tuple[EvaluatedRows, EvaluatedRows]:
    random = np.random.default_rng(0)
    names = [f"s{at % 300}" for at in range(2_000)]
    kl = random.lognormal(0, 0.5, 2_000)
    tokens = [200] * 2_000
    first = rows_of(kl=kl.tolist(), tokens=tokens, domain=names)
    moved = kl * random.normal(1, 0.05, 2_000)
    return first, rows_of(kl=moved.tolist(), tokens=tokens, domain=names)


if __name__ == "__main__":
    main()

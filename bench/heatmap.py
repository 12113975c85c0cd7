"""How soon a heatmap of 62 layers × 256 experts can be worked with, from the click, in Chromium.

``python -m bench.heatmap``. The first user's set, 590 rows with all facets, as a profile of a
seeded job, served by a web process of its own. Each try is a browser context with an empty cache:
the job's page is opened and read for two seconds, its link to the heatmap clicked. Timed is from
the click to the painted heatmap, from there to the answer to the pointer over a cell, and a
filter from its choice to the heatmap drawn anew; the first try of all, on a server that has not
read the profile yet, stands alone. CPU time is that of all of Chromium and of the web
process: unlike the clock they hardly depend on what else the machine does, so its load is printed
beside them. ``--root`` times another checkout of the project with this bench.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from app.base_models.service import add_model
from app.calibration.service import save_set
from app.coverage.profile import Profile
from app.database import migrate, session_for
from app.facets import Facet, vocabulary
from app.settings import ROOT, Settings
from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.seed import small_spec, succeeded_job
from tests.seeded_model import write_model

LAYERS, EXPERTS, TOP_K, ROWS, ROW_TOKENS = 62, 256, 8, 590, 8192
READING_SECONDS = 2.0
# When the link was clicked (kept over the navigation), and when a heatmap stood painted.
WATCH = """
  const now = () => performance.timeOrigin + performance.now();
  document.addEventListener("click", () => sessionStorage.setItem("clicked", now()), true);
  document.addEventListener("change", () => sessionStorage.setItem("clicked", now()), true);
  new MutationObserver(() => {
    const chart = document.querySelector('[data-state="drawn"]');
    if (!chart || chart.dataset.timed) return;
    chart.dataset.timed = "yes";
    requestAnimationFrame(() => setTimeout(() => {
      document.documentElement.dataset.painted = now() - sessionStorage.getItem("clicked");
    }));
  }).observe(document, { attributes: true, subtree: true, attributeFilter: ["data-state"] });
"""
SPANS = """() => {
  const [page] = performance.getEntriesByType("navigation");
  const resources = performance.getEntriesByType("resource");
  const end = (part) => resources.findLast((one) => one.name.includes(part))?.responseEnd ?? NaN;
  return { page: page.responseEnd, plotly: end("plotly"), json: end("coverage/chart") };
}"""
Try = dict[str, float]


def first_users_profile() -> Profile:
    """Seeded routing of 590 rows: every value of every facet prefers experts of its own."""
    chance = np.random.default_rng(0)
    columns = {
        facet.value: np.array(list(vocabulary(facet))[:60])[
            chance.integers(0, min(60, len(vocabulary(facet))), ROWS)
        ]
        for facet in Facet
    }
    columns["source"] = np.array([f"collection/source-{n}" for n in chance.integers(0, 20, ROWS)])
    columns["slice"] = columns[Facet.DOMAIN.value]
    likes = chance.dirichlet(np.full(EXPERTS, 0.5), size=(60, LAYERS))
    values = np.unique(columns["programming_language"], return_inverse=True)[1]
    tokens = chance.integers(ROW_TOKENS // 2, ROW_TOKENS + 1, ROWS)
    counts = np.stack(
        [
            chance.multinomial(length * TOP_K, likes[value]).astype(np.uint16)
            for length, value in zip(tokens, values, strict=True)
        ]
    )
    return Profile(
        counts=counts,
        mass=counts.astype(np.float32) / np.float32(TOP_K),
        layers=np.arange(LAYERS),
        row_ids=np.array([f"row-{number}" for number in range(ROWS)]),
        tokens=tokens.astype(np.int64),
        top_k=TOP_K,
        facets=columns,
    )


def job_in(settings: Settings) -> str:
    """A seeded job that succeeded, its coverage replaced by the first user's."""
    with session_for(settings) as session:
        model = add_model(session, write_model(settings.data_dir / "models" / "MiniMax-M2-demo"))
        job = succeeded_job(session, settings, save_set(session, small_spec()), model)
    with (settings.jobs_dir / job / "coverage.npz").open("wb") as stream:
        first_users_profile().save(stream)
    return job


@contextmanager
def web_process(data_dir: Path, root: Path) -> Iterator[tuple[str, int]]:
    """The web process of a checkout on a free port: its address and process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["uvicorn", "--factory", "app.main:create_app", "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "--log-level", "warning"],
        cwd=root,
        env=os.environ | {"CALIBRANT_DATA_DIR": str(data_dir), "CALIBRANT_ASSETS": "local"},
        stdout=subprocess.DEVNULL,
    )
    try:
        while process.poll() is None:
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait(10)


def opened(browser: Browser, url: str, job: str, server: int) -> Try:
    """One try in a fresh context."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.add_init_script(WATCH)
    page = context.new_page()
    page.goto(f"{url}/jobs/{job}")
    time.sleep(READING_SECONDS)
    served, drawn = cpu_seconds(server), cpu_seconds(*browsers())
    page.locator("#to-coverage").click()
    found = {"heatmap": painted(page), **spans(page)}
    found["server CPU"] = 1000 * (cpu_seconds(server) - served)
    found["browser CPU"] = 1000 * (cpu_seconds(*browsers()) - drawn)
    found["pointer"] = pointed(page)
    page.evaluate("delete document.documentElement.dataset.painted")
    page.get_by_label("Programming language").select_option("Rust")
    found["filter"] = painted(page)
    context.close()
    return found


def painted(page: Page) -> float:
    """Milliseconds from the click to the painted heatmap."""
    root = page.locator("html[data-painted]")
    root.wait_for()
    return float(str(root.get_attribute("data-painted")))


def spans(page: Page) -> Try:
    """When the page, the drawing library and the heatmap's JSON were there, from the request."""
    return {f"{name} there": float(at) for name, at in page.evaluate(SPANS).items()}


def pointed(page: Page) -> float:
    """Milliseconds from the pointer's move to the words about a cell."""
    box = page.locator("[data-chart] .nsewdrag").first.bounding_box()
    assert box
    began = time.perf_counter()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.4)
    page.locator("[data-chart] .hovertext").wait_for()
    return 1000 * (time.perf_counter() - began)


def browsers() -> list[int]:
    """Every process of Chromium."""
    below = psutil.Process().children(recursive=True)
    return [process.pid for process in below if process.name().startswith("chrom")]


def cpu_seconds(*processes: int) -> float:
    """CPU seconds some processes have taken."""
    times = [psutil.Process(process).cpu_times() for process in processes]
    return sum(time.user + time.system for time in times)


def machine() -> str:
    """The cores and what else they do."""
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} over the last minute"


def lines(tries: list[Try]) -> list[str]:
    """The table: the first try, and the median and the extremes of the others."""
    first, *others = tries
    table = ["| ms | first of all | median | from | to |", "|---|---:|---:|---:|---:|"]
    for name in first:
        values = [one[name] for one in others]
        shown = (first[name], statistics.median(values), min(values), max(values))
        table.append(f"| {name} | " + " | ".join(f"{value:,.0f}" for value in shown) + " |")
    return table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=9)
    parser.add_argument("--root", type=Path, default=ROOT)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        settings = Settings(data_dir=Path(directory), assets="local")
        migrate(settings)
        job = job_in(settings)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        tries = []
        with web_process(settings.data_dir, given.root) as (url, process):
            for _ in range(given.tries + 1):
                tries.append(opened(browser, url, job, process))
        browser.close()
    print("\n".join(lines(tries)), f"\n{machine()}", sep="\n")


if __name__ == "__main__":
    main()

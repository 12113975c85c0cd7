"""Pictures of every page, light and dark, 1440 and 390 wide: ``make screenshots``.

Without ``--url`` the data directory of ``make demo`` is served for as long as it takes. Pages of
single things are those of the newest: run the demo first. With ``--readme`` only the README's
picture is taken anew.
"""

from __future__ import annotations

import argparse
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import httpx
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from app.database import migrate
from app.main import create_app
from app.settings import ROOT, Settings

CHROMIUM = "/usr/bin/chromium"
README_PICTURE = ROOT / "docs" / "screenshots" / "coverage.png"
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
WIDTHS = (1440, 390)
READY_SECONDS = 30.0

log = logging.getLogger("screenshots")


def pages_of(url: str) -> dict[str, str]:
    """The name of each picture and the page it is of; pages of things that are not there are
    left out."""
    pages = {
        "overview": "/",
        "sets": "/sets",
        "compose": "/sets/new",
        "set-import": "/sets/import",
        "set-diff": "/sets/diff?a=starter&b=starter",
        "models": "/models",
        "recipes": "/recipes",
        "recipe": "/recipes/experts-w4a16-g32",
        "recipe-new": "/recipes/new",
        "jobs": "/jobs",
        "checkpoints": "/checkpoints",
        "gates": "/gates",
        "sources": "/sources",
        "source": "/sources/permissive",
        "source-hub": "/sources/ultrachat-200k",
        "source-new": "/sources/new",
        "not-found": "/jobs/none",
    }
    with httpx.Client(base_url=url, headers={"accept": "application/json"}) as client:
        for name, kind in (("set", "sets"), ("model", "models"), ("checkpoint", "checkpoints")):
            if found := client.get(f"/{kind}").json()[kind]:
                pages[name] = f"/{kind}/{found[0]['id']}"
        if "set" in pages:
            pages["set-rows"] = f"{pages['set']}/rows"
            pages["audit"] = f"{pages['set']}/audit"
        done = client.get("/jobs?state=succeeded").json()["jobs"]
        if len(done) > 1:
            pages["compare"] = f"/compare?jobs={done[1]['id']},{done[0]['id']}"
        for job in reversed(client.get("/jobs").json()["jobs"]):
            pages[f"job-{job['state']}"] = f"/jobs/{job['id']}"
            if job["state"] == "succeeded":
                pages["coverage"] = f"/jobs/{job['id']}/coverage"
                pages["expert"] = f"/jobs/{job['id']}/coverage/experts/2/7"
                pages["coverage-compared"] = f"/jobs/{job['id']}/coverage/compare"
                pages["rows-chosen"] = f"/jobs/{job['id']}/coverage/rows?budget=20000"
                pages["errors"] = f"/jobs/{job['id']}/errors"
                pages["sensitivity"] = f"/jobs/{job['id']}/sensitivity"
                pages["report"] = f"/jobs/{job['id']}/report"
    return pages


def take(browser: Browser, url: str, pages: dict[str, str], out: Path) -> None:
    """Write one picture for each page, scheme and width into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    for scheme in SCHEMES:
        for width in WIDTHS:
            viewport = {"width": width, "height": 900}
            context = browser.new_context(viewport=viewport, color_scheme=scheme)  # type: ignore[arg-type]
            page = context.new_page()
            for name, address in pages.items():
                page.goto(url + address)
                settle(page)
                file = out / f"{name}-{scheme}-{width}.png"
                page.screenshot(path=file, full_page=True)
                log.info("%s", file)
            context.close()


def take_readme_picture(browser: Browser, url: str, pages: dict[str, str]) -> None:
    """Write the picture of the README: the page of the newest coverage, down to its heatmap."""
    page = browser.new_page(viewport={"width": WIDTHS[0], "height": 1200}, color_scheme="light")
    page.goto(url + pages["coverage"])
    settle(page)
    bottom = page.locator("[data-chart]").evaluate("e => e.getBoundingClientRect().bottom")
    clip = {"x": 0, "y": 0, "width": WIDTHS[0], "height": bottom}
    page.screenshot(path=README_PICTURE, clip=clip)  # type: ignore[arg-type]
    log.info("%s", README_PICTURE)


def settle(page: Page) -> None:
    """Wait until scripts run and every chart is drawn."""
    page.wait_for_selector("html[data-htmx]")
    if page.locator("[data-chart]").count():
        page.wait_for_selector("[data-state=drawn] .main-svg")
    page.wait_for_timeout(150)


@contextmanager
def served(data_dir: Path) -> Iterator[str]:
    """The address of a data directory's pages, served by this process."""
    settings = Settings(data_dir=data_dir, assets="local")
    migrate(settings)
    config = uvicorn.Config(create_app(settings), port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + READY_SECONDS
    while not server.started:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the server did not start in {READY_SECONDS:.0f} s")
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="a running server")
    parser.add_argument("--data-dir", type=Path, default=ROOT / ".data")
    parser.add_argument("--out", type=Path, default=ROOT / "screenshots")
    parser.add_argument("--only", help="names of pages, separated by commas")
    parser.add_argument("--readme", action="store_true", help="the README's picture alone")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if given.url:
        _take_all(given.url.rstrip("/"), given)
        return
    with served(given.data_dir) as url:
        _take_all(url, given)


def _take_all(url: str, given: argparse.Namespace) -> None:
    pages = pages_of(url)
    if given.only:
        pages = {name: pages[name] for name in given.only.split(",")}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        if given.readme:
            take_readme_picture(browser, url, pages)
        else:
            take(browser, url, pages, given.out)
        browser.close()


if __name__ == "__main__":
    main()

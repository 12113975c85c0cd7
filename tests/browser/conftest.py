"""A real Chromium, and a real server process on a filled installation."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from app.database import migrate
from app.settings import ROOT, Settings
from tests.seed import Seeded, seed

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
READY_SECONDS = 60.0
# Generous: the tests run beside others on two busy cores.
PATIENCE_MS = 20_000


@dataclass(frozen=True)
class Site:
    """A served installation."""

    url: str
    settings: Settings
    seeded: Seeded


@contextmanager
def web_process(data_dir: Path, port: str = "0", **environment: str) -> Iterator[str]:
    """The web process alone, by default on a free port; its output is shown if it fails."""
    log = data_dir / "web.log"
    command = ["uvicorn", "--factory", "app.main:create_app", "--port", port, "--no-access-log"]
    given = {"CALIBRANT_DATA_DIR": str(data_dir), "CALIBRANT_ASSETS": "local"} | environment
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env=os.environ | given,
            stdout=stream,
            stderr=stream,
        )
    try:
        yield _address(process, log)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # A browser still holds a stream open.
            process.kill()
            process.wait(10)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"running on (http://[\d.:]+)", log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.05)
    raise AssertionError(f"the web process did not come up:\n{log.read_text(errors='replace')}")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A model, two sets and a job in every state, served. Tests add to it and take nothing."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("site"), assets="local")
    migrate(settings)
    seeded = seed(settings)
    with web_process(settings.data_dir) as url:
        yield Site(url, settings, seeded)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield started
        started.close()


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Makes pages in contexts of their own. What a page complains of in its console fails the
    test at its end: a script that the content security policy refused is one such thing."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def make(may_complain: bool = False, **options: Any) -> Page:
        context = browser.new_context(**({"viewport": {"width": 1440, "height": 900}} | options))
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        if not may_complain:
            page.on("console", lambda message: complaints.extend(_complaint(message)))
            page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield make
    for context in contexts:
        context.close()
    assert complaints == []


def _complaint(message: ConsoleMessage) -> list[str]:
    return [f"{message.text} ({message.location})"] if message.type == "error" else []


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    """A page 1440 wide in the light scheme."""
    return new_page()

"""A job's process that does what a test tells it, through the real pipes and the real events.

Usage: child.py DIRECTORY WHAT
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from app.jobs.events import Failed, Finished, Notice, Progress, StepFinished, StepStarted
from app.jobs.spec import JobResult
from app.jobs.states import Step


def say(event: object) -> None:
    print(event.model_dump_json(), flush=True)  # noqa: T201


def work() -> None:
    say(StepStarted(step=Step.BUILD))
    for done in range(1, 4):
        say(Progress(step=Step.BUILD, done=done, total=3, unit="rows"))
    say(Notice(level="warning", message="one row was set aside"))
    say(StepFinished(step=Step.BUILD, seconds=0.1, figures={"rows": 3}))


def hold(directory: Path) -> None:
    """Stay, with a child of one's own, deaf to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    grandchild = subprocess.Popen([sys.executable, "-c", code])
    (directory / "pids").write_text(f"{os.getpid()} {grandchild.pid}")
    say(StepStarted(step=Step.BUILD))
    time.sleep(600)


def main(directory: Path, what: str) -> int:
    match what:
        case "succeed":
            work()
            say(Finished(result=JobResult(set_rows=3).model_dump(mode="json")))
        case "refuse":
            say(Failed(sentence="The slice 'Pony' is empty.", refused=True))
            return 2
        case "crash":
            say(StepStarted(step=Step.BUILD))
            raise RuntimeError("the row is missing")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "babble":
            print("not an event", flush=True)  # noqa: T201
            work()
            say(Finished(result=JobResult(set_rows=3).model_dump(mode="json")))
        case "hold":
            hold(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))

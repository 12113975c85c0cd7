"""The process of one job: reads ``spec.json``, runs the engine, says its events on stdout."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import IO

from app.errors import CalibrantError
from app.jobs import files
from app.jobs.events import Event, Failed, Finished
from app.jobs.spec import JobSpec
from app.liveness import die_with_parent


def main(directory: Path, supervisor_pid: int) -> int:
    """Run the job whose directory this is; the exit code is 0, or the error's own."""
    _die_with(supervisor_pid)
    events = _take_stdout()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")

    def emit(event: Event) -> None:
        events.write(event.model_dump_json() + "\n")
        events.flush()

    spec = JobSpec.model_validate_json((directory / files.SPEC).read_bytes())
    try:
        # Imported here: torch takes seconds to load, and the supervisor already listens.
        from workers.engine.main_job import run

        result = run(spec, emit)
    except CalibrantError as error:
        logging.error("%s", error.sentence)
        emit(Failed(sentence=error.sentence, refused=error.exit_code == 2))
        return error.exit_code
    except Exception as error:
        logging.exception("the job failed")
        emit(Failed(sentence=f"{type(error).__name__}: {error}"))
        return 1
    emit(Finished(result=result.model_dump(mode="json")))
    return 0


def _die_with(supervisor_pid: int) -> None:
    die_with_parent()
    if os.getppid() != supervisor_pid:  # It ended before the kernel was asked.
        sys.exit(1)


def _take_stdout() -> IO[str]:
    """The event stream's own handle; whatever libraries print goes to the log instead."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))

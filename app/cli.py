"""``calibrant``: the same services as the pages, for a terminal and for scripts.

Exit codes: 0 success, 2 refused input with a sentence, 1 anything else.
"""

from __future__ import annotations

import atexit
import io
import logging
import os
import signal
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import structlog
import typer
from pydantic import ValidationError
from sqlalchemy.exc import DatabaseError
from typer.core import TyperGroup

from app import database
from app import demo as demo_job
from app.audit import commands as audit_commands
from app.base_models import commands as models_commands
from app.calibration import commands as sets_commands
from app.comparison import commands as comparison_commands
from app.console import complain, tell, told
from app.errors import CalibrantError, Refused
from app.jobs import commands as jobs_commands
from app.processes import Installation, installation
from app.recipes import commands as recipes_commands
from app.remote import SERVER_VARIABLE
from app.set_files import commands as set_file_commands
from app.settings import Settings, get_settings
from app.sources import commands as sources_commands
from app.validation import first_problem, in_words, listed


class InOrder(TyperGroup):
    """Commands in the order of the work, wherever they are written."""

    order: tuple[str, ...] = ()

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands as help shows them; one without a place comes last."""
        places = {name: place for place, name in enumerate(self.order)}
        return sorted(super().list_commands(ctx), key=lambda name: places.get(name, len(places)))


class SetCommands(InOrder):
    """``calibrant sets``, of three rooms."""

    order = ("list", "import", "show", "fetch", "build", "audit", "export", "diff", "delete")


class Commands(InOrder):
    """Every command: a value that an option cannot have is told in our own words."""

    order = (
        *("up", "demo", "migrate", "sources", "sets", "models", "recipes", "coverage", "select"),
        *("preflight", "quantize", "evaluate", "verify", "export-recipe", "compare", "jobs"),
    )

    def invoke(self, ctx: Any) -> Any:
        """Run the command that is asked for."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            if isinstance(error.__cause__, ValidationError):
                error.message = in_words(error.__cause__.errors(include_url=False)) + "."
            raise


app = typer.Typer(
    cls=Commands,
    help="Design, run and review the quantization of Mixture-of-Experts language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # lines run on, and names of code are shown as such
)
app.add_typer(sources_commands.app, name="sources")
sets_commands.app.command()(audit_commands.audit)
app.add_typer(sets_commands.app, name="sets", cls=SetCommands)
sets_commands.app.registered_commands += set_file_commands.app.registered_commands
app.add_typer(models_commands.app, name="models")
app.add_typer(recipes_commands.app, name="recipes")
app.add_typer(jobs_commands.app, name="jobs")
app.registered_commands += comparison_commands.app.registered_commands

Host = Annotated[
    str | None,
    typer.Option(help="The address to listen on; by default CALIBRANT_HOST, else 127.0.0.1."),
]
Port = Annotated[
    int | None,
    typer.Option(
        min=0, max=65535, help="The port, by default CALIBRANT_PORT, else 8000; 0 takes a free one."
    ),
]


@app.callback()
def root(
    data_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="CALIBRANT_DATA_DIR",
            help="Where Calibrant keeps everything; by default ~/.local/share/calibrant.",
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            envvar=SERVER_VARIABLE,
            help="Ask this server instead (for jobs and compare); its token is CALIBRANT_TOKEN.",
        ),
    ] = None,
) -> None:
    """Set what every command shares."""
    if server is not None:
        os.environ[SERVER_VARIABLE] = server
    if data_dir is not None:
        os.environ["CALIBRANT_DATA_DIR"] = str(data_dir)
        get_settings.cache_clear()


def _settings(host: str | None, port: int | None) -> Settings:
    changed: dict[str, Any] = {}
    if host is not None:
        changed["host"] = host
    if port is not None:
        changed["port"] = port
    return get_settings().model_copy(update=changed)


def _serve(running: Installation) -> None:
    """Wait until somebody stops the program; what ends by itself is started again."""
    while True:
        for sentence in running.mend():
            complain(sentence)
        time.sleep(0.5)


@app.command()
def up(host: Host = None, port: Port = None) -> None:
    """Web, worker and broker under one supervisor, until Ctrl-C."""
    with installation(_settings(host, port)) as running:
        tell(f"Calibrant serves on {running.address}", "Ctrl-C stops it.")
        _serve(running)


@app.command()
def migrate() -> None:
    """Bring the database to the newest schema."""
    database.migrate(get_settings())


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Exit when the job is done.")] = False,
    host: Host = None,
    port: Port = None,
) -> None:
    """Bring everything up and run the main job on the starter corpus and the demo model."""
    settings = _settings(host, port)
    with installation(settings) as running:
        outcome = demo_job.run(settings, running)
        tell(*outcome.lines)
        if once:
            raise typer.Exit(0 if outcome.succeeded else 1)
        tell(f"Calibrant serves on {running.address}", "Ctrl-C stops it.")
        _serve(running)


def add_worker_commands() -> None:
    """Mount the commands of the ``worker`` extra where it is installed."""
    for entry in entry_points(group="calibrant.commands"):
        try:
            commands: typer.Typer = entry.load()
        except ModuleNotFoundError as error:
            if error.name and error.name.partition(".")[0] in {"workers", "torch", "transformers"}:
                continue
            raise
        app.registered_commands += commands.registered_commands


SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Stopped(BaseException):
    """A signal that ends the program, once what is under way is tidied up."""


def _stop(number: int, _frame: FrameType | None) -> None:
    raise _Stopped(number)


def _end_by(signals: list[int]) -> None:
    for number in signals:
        os.kill(os.getpid(), number)


def main() -> None:
    """Run the command that is asked for. A signal ends the program as that signal would: a shell's
    loop over several models then ends too, and says 130 for Ctrl-C."""
    ended_by: list[int] = []
    atexit.register(_end_by, ended_by)  # the first registered is the last that is run
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        # Whatever the locale: JSON and YAML are UTF-8, and half a surrogate has JSON's own escape.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    add_worker_commands()
    # Set here and not left to Python: a shell starts background jobs with SIGINT ignored.
    for number in SIGNALS:
        signal.signal(number, _stop)
    try:
        app()
    except CalibrantError as error:
        complain(error.sentence)
        sys.exit(error.exit_code)
    except ValidationError as error:
        complain(_setting_refused(error).sentence)
        sys.exit(Refused.exit_code)
    except (OSError, DatabaseError) as error:
        known = told(error)
        if known is None:
            raise
        complain(known.sentence)
        sys.exit(known.exit_code)
    except _Stopped as stopped:
        (number,) = stopped.args
        for each in SIGNALS:  # a second one ends it at once
            signal.signal(each, signal.SIG_DFL)
        ended_by.append(number)
        sys.exit(128 + number)  # the first process of a container cannot be ended by its own


def _setting_refused(error: ValidationError) -> Refused:
    place, said = first_problem(error, Settings)
    name = listed(place).upper()
    if not name.startswith("CALIBRANT_"):
        name = f"CALIBRANT_{name}"
    elif name not in os.environ:  # one that is also known by the name other programs give it
        name = name.removeprefix("CALIBRANT_")
    return Refused(f"{name if place else error.title}: {said}.")


if __name__ == "__main__":
    main()

"""``calibrant sets``: calibration sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from sqlmodel import Session

from app.base_models.models import BaseModelRecord
from app.calibration import deletion, service
from app.calibration.building import build_set
from app.calibration.built_set import BuiltSet
from app.calibration.models import CalibrationSet
from app.calibration.rebuilding import read_manifest
from app.calibration.spec import SetSpec
from app.calibration.starter import software_engineer
from app.calibration.views import import_notes
from app.console import Json, complain, installed, say, tell, wide
from app.errors import NotFound
from app.formatting import size
from app.rendering.renderer import Renderer
from app.set_files.service import read_for
from app.settings import Settings
from app.sources.catalogue import entries_of
from app.sources.entry import SourceEntry
from app.sources.pinning import Fetching, at_revision
from app.sources.starter_corpus import PACKS

STARTER = "starter"

app = typer.Typer(help="Calibration sets.", no_args_is_help=True)


@app.command("list")
def list_(json: Json = False) -> None:
    """Every saved set."""
    with installed() as (session, _):
        saved = service.list_sets(session)
    if json:
        say([one.model_dump(mode="json") for one in saved])
        return
    tell(*(wide(one.id, one.name) for one in saved))


@app.command()
def delete(
    set_: Annotated[
        str,
        typer.Argument(
            metavar="SET", help="A saved set's id, or a build's whose composition is not saved."
        ),
    ],
    json: Json = False,
) -> None:
    """Take a saved set and what was built from it away for good; refused while a job that used it
    is kept."""
    with installed() as (session, settings):
        deleted = deletion.delete(session, settings, set_)
    if json:
        say(deleted.model_dump(mode="json"))
    else:
        tell(f"{deleted.id} deleted, {size(deleted.freed_bytes)} freed")


@app.command()
def show(
    set_: Annotated[str, typer.Argument(metavar="SET", help="A saved set's id.")],
    json: Json = False,
) -> None:
    """A saved set: what it asks for, and what was to be known of the file it came from."""
    with installed() as (session, _):
        saved = service.get_set(session, set_)
    if json:
        say(saved.model_dump(mode="json"))
        return
    spec, notes = service.spec_of(saved), import_notes(saved)
    tell(
        wide("id", saved.id),
        wide("name", saved.name),
        wide("budget", f"{spec.token_budget:,} tokens" if spec.token_budget else "the slices' own"),
        wide("length", f"{spec.max_length:,} tokens"),
        wide("seed", str(spec.seed)),
        wide(
            "sources",
            ", ".join(spec.sources) if len(spec.sources) <= 5 else f"{len(spec.sources)} data sets",
        ),
        *(wide("slice", f"{part.name}: {part.size}") for part in spec.slices),
    )
    if notes is not None:
        tell(wide("file", f"{notes.file_name}, {notes.count:,} warnings"))
        tell(*(f"line {one.line}: {said}" for one in notes.lines for said in one.messages))


@app.command()
def build(
    set_: Annotated[
        str,
        typer.Argument(
            metavar="SET",
            help="A saved set's id, a YAML file, a built set's manifest or 'starter'.",
        ),
    ],
    model: Annotated[str, typer.Option(help="A model directory, or an added model's id.")],
    json: Json = False,
) -> None:
    """Build a set for a model: choose its rows, render and tokenize them.

    From a manifest the same bytes are built again, of the revisions it names.
    """
    with installed() as (session, settings):
        again = read_manifest(Path(set_)) if Path(set_).is_file() else None
        if again is not None:
            directory = model_directory(session, model)
            again.require_same_model(Renderer.of_model(directory))
            for sentence in again.differences():
                complain(sentence)
        spec = again.spec if again else find_spec(session, set_)
        built = build_for(session, settings, spec, model, again.revisions if again else None)
    if json:
        say(built.as_json())
        return
    for warning in built.warnings:
        complain(warning)
    tell(
        wide("id", built.id),
        wide("rows", f"{built.rows:,}"),
        wide("tokens", f"{built.tokens:,}"),
        wide("set aside", f"{len(built.set_aside):,} rows"),
        wide("directory", str(built.directory)),
    )


def build_for(
    session: Session,
    settings: Settings,
    spec: SetSpec,
    model: str,
    revisions: Mapping[str, str] | None = None,
) -> BuiltSet:
    """Build a composition for a model that somebody named, with a bar on stderr; ``revisions``
    pins sources by name.

    Raises CompositionRefused, ModelRefused, DiskFull.
    """
    service.require_in_use(settings, spec)
    with progress_bar("Rows") as bar:
        return build_set(
            spec,
            tokenizer_dir=model_directory(session, model),
            sets_dir=settings.sets_dir,
            index_dir=settings.index_dir,
            sources_dir=settings.sources_dir,
            revisions=revisions,
            entries=_entries(session, spec, revisions or {}),
            progress=bar.advance,
            fetching=bar.fetching,
        )


def find_spec(session: Session, name: str) -> SetSpec:
    """The composition somebody means: the starter, a saved set's id, or a YAML file.

    Raises Refused when the file is not a set, NotFound for another name.
    """
    if name == STARTER:
        return software_engineer()
    if (saved := session.get(CalibrationSet, name)) is not None:
        return service.spec_of(saved)
    if not Path(name).is_file():
        raise NotFound(
            f"There is no calibration set and no file {name!r}: give a saved set's id, a set's "
            "file, or 'starter'."
        )
    return read_for(session, Path(name).read_bytes(), name).spec


def _entries(session: Session, spec: SetSpec, revisions: Mapping[str, str]) -> list[SourceEntry]:
    """The catalogue's entries of a composition's sources, so that rows that are not here are
    fetched, at the revision a manifest names."""
    names = [name for name in spec.sources if name not in PACKS]
    return [at_revision(entry, revisions.get(entry.name)) for entry in entries_of(session, names)]


def model_directory(session: Session, model: str) -> Path:
    """Where a model lies that somebody named by its id or its directory."""
    record = session.get(BaseModelRecord, model)
    return Path(record.path) if record else Path(model).expanduser().resolve()


@dataclass(frozen=True)
class Bar:
    """A bar of the work that ``name`` says."""

    name: str
    progress: Progress
    task: TaskID

    def advance(self, done: int, total: int) -> None:
        """The work itself: ``done`` of ``total``."""
        self.progress.update(self.task, description=self.name, completed=done, total=total)

    def fetching(self, far: Fetching) -> None:
        """What must be fetched first."""
        said = f"Fetching {far.source}, {far.read:,} rows read"
        self.progress.update(self.task, description=said, completed=far.done, total=far.total)


@contextmanager
def progress_bar(name: str) -> Iterator[Bar]:
    """A bar on stderr where that is a terminal, silence elsewhere."""
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        yield Bar(name, progress, progress.add_task(name, total=None))

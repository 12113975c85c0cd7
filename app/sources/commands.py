"""``calibrant sources``: where rows come from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress as Bar

from app.console import Json, complain, installed, say, tell, wide
from app.errors import CalibrantError, Refused
from app.facets import Facet
from app.row_files.file_kinds import COMPRESSIONS, CONTENTS
from app.settings import Settings
from app.sources import service
from app.sources.adding import NewSource, add_folder, add_hub, add_upload, by_comma
from app.sources.catalogue import Source, SourceState, get_entry, get_source, list_sources
from app.sources.fetch_process import told_in_the_record
from app.sources.fetching import found_rows
from app.sources.hub_proposal import proposal_of_hub
from app.sources.previews import PreviewRow, preview
from app.sources.search import SourceQuery, matching
from app.sources.store import Progress
from app.sources.views import source_view
from app.validation import validated

_WIDTH = 42  # of a name in a list; a longer one moves the rest of its line

app = typer.Typer(help="Sources of calibration rows.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="A source's name.")]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", help="facet=value for rows that carry none, e.g. spoken_language=fr"),
]

Columns = Annotated[
    list[str] | None,
    typer.Option("--column", help="facet=column that holds rows' own labels, e.g. domain=topic"),
]


@app.command("list")
def list_(
    q: Annotated[str, typer.Option("--search", help="Words of the name, title or place.")] = "",
    kind: Annotated[str | None, typer.Option(help="starter, hub, upload or folder.")] = None,
    state: Annotated[SourceState | None, typer.Option(help="Whether its rows are here.")] = None,
    tag: Tags = None,
    json: Json = False,
) -> None:
    """The catalogue; sources that are not in use are marked."""
    query = validated(SourceQuery, {"q": q, "kind": kind, "state": state, **_tags(tag)})
    with installed() as (session, settings):
        found = matching(list_sources(session, settings), query)
    if json:
        say([source.model_dump(mode="json") for source in found])
        return
    for source in found:
        rows = f"{source.rows:>9,} rows" if source.rows is not None else f"{source.state:>14}"
        mark = "" if source.in_use else "  (not in use)"
        tell(f"{source.name:<{_WIDTH}}  {source.kind:<8}{rows}  {source.place}{mark}")


@app.command("add")
def add(
    what: Annotated[
        str,
        typer.Argument(metavar="FILE|FOLDER|HUB_ID", help="A path, or a data set's id on the hub."),
    ],
    name: Annotated[str, typer.Option(help="Its name; made of the file's when not given.")] = "",
    title: Annotated[str, typer.Option(help="A title for people.")] = "",
    formatter: Annotated[str, typer.Option(help="How rows become conversations.")] = "",
    columns: Annotated[str, typer.Option(help="The formatter's columns, by comma.")] = "",
    tag: Tags = None,
    license_: Annotated[str, typer.Option("--license", help="An SPDX name.")] = "",
    encoding: Annotated[str, typer.Option(help="The encoding of text.")] = "utf-8",
    subset: Annotated[str, typer.Option(help="Of a data set of the hub.")] = "",
    split: Annotated[str, typer.Option(help="Of a data set of the hub.")] = "",
    revision: Annotated[str, typer.Option(help="A branch, tag or commit of the hub.")] = "",
    streaming: Annotated[bool, typer.Option(help="Do not download the data set whole.")] = False,
    rows_limit: Annotated[int | None, typer.Option(help="Rows to draw from the hub.")] = None,
    set_aside_limit: Annotated[
        int | None, typer.Option(help="Fail past this many rows that do not fit.")
    ] = None,
    json: Json = False,
) -> None:
    """Add a file, a folder of this machine, or a data set of the hub.

    Without a formatter the first rows propose one.
    """
    document: dict[str, Any] = {
        "name": name, "title": title, "formatter": formatter, "columns": by_comma(columns),
        "license": license_, "encoding": encoding, "set_aside_limit": set_aside_limit,
        **_tags(tag),
    }  # fmt: skip
    if not what:
        raise Refused("Give a file, a folder, or the id of a data set of the hub.")
    path = Path(what).expanduser()
    with installed() as (session, settings), _bar("rows") as progress:
        if path.is_file():
            new = validated(NewSource, document)
            with path.open("rb") as content:
                entry = add_upload(session, settings, new, path.name, content, progress)
        elif path.is_dir():
            new = validated(NewSource, {**document, "folder": str(path.resolve())})
            entry = add_folder(session, settings, new, progress)
        elif _means_a_file(what):
            raise Refused(f"There is no file or folder {what}.")
        else:
            given = {"hub_id": what, "subset": subset, "split": split, "revision": revision}
            more = {"streaming": streaming, "rows_limit": rows_limit}
            new = validated(NewSource, {**document, **given, **more})
            entry = add_hub(session, new, _proposal(settings, new))
        view = source_view(session, settings, entry.name)
    if json:
        say(view.model_dump(mode="json"))
        return
    source = view.source
    tell(
        wide("name", source.name),
        wide("formatter", f"{source.formatter}({', '.join(source.columns)})"),
        wide("rows", "not fetched" if source.rows is None else f"{source.rows:,}"),
        wide("set aside", f"{source.set_aside:,}"),
    )


@app.command("preview")
def preview_(
    name: Name,
    rows: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 5,
    json: Json = False,
) -> None:
    """Some rows of a source, as conversations."""
    with installed() as (session, settings):
        file = found_rows(get_entry(session, name), settings.sources_dir)
    if file is None:
        raise Refused(f"Source {name!r} has no rows here yet: calibrant sources fetch {name}")
    shown = preview(file, rows=rows)
    if json:
        say([row.model_dump(mode="json") for row in shown])
        return
    tell(*(line for row in shown for line in _lines(row)))


@app.command("fetch")
def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Sources by name.")],
    json: Json = False,
) -> None:
    """Fetch rows anew: the hub's newest commit, the folder as it is now.

    A source that fails does not stop the others; the exit code is 2 then.
    """
    fetched: list[Source] = []
    failed: dict[str, str] = {}
    with installed() as (session, settings):
        for name in names:
            try:
                with told_in_the_record(session, name) as tell_it, _bar(name, tell_it) as advance:
                    service.fetch(session, settings, name, advance)
            except CalibrantError as error:
                failed[name] = error.sentence
                continue
            fetched.append(get_source(session, settings, name))
    if json:
        say({"sources": [one.model_dump(mode="json") for one in fetched], "failed": failed})
    else:
        tell(*(f"{one.name:<{_WIDTH}}  {one.rows or 0:>9,} rows" for one in fetched))
    for name, sentence in failed.items():
        complain(f"{name}: {sentence}")
    if failed:
        raise typer.Exit(Refused.exit_code)


@app.command("tag")
def tag_(name: Name, tag: Tags = None, column: Columns = None, json: Json = False) -> None:
    """Label the rows of a source that carry no label themselves, and say in which columns others
    carry theirs; ``facet=`` takes one away."""
    with installed() as (session, settings):
        old = get_entry(session, name)
        changes = {
            "tags": _changed(old.tags, _by_facet("--tag", tag)),
            "label_columns": _changed(old.label_columns, _by_facet("--column", column)),
        }
        entry = service.change(session, settings, name, changes)
    _said(entry.name, "tagged", json)


@app.command("disable")
def disable(name: Name, json: Json = False) -> None:
    """Keep a source out of new sets."""
    with installed() as (session, settings):
        service.change(session, settings, name, {"enabled": False})
    _said(name, "disabled", json)


@app.command("enable")
def enable(name: Name, json: Json = False) -> None:
    """Let new sets use a source again."""
    with installed() as (session, settings):
        service.change(session, settings, name, {"enabled": True})
    _said(name, "enabled", json)


@app.command("delete")
def delete(name: Name, json: Json = False) -> None:
    """Take a source and its rows away; refused while a set uses it."""
    with installed() as (session, settings):
        service.delete(session, settings, name)
    _said(name, "deleted", json)


def _said(name: str, what: str, json: bool) -> None:
    if json:
        say({"name": name, "done": what})
    else:
        tell(f"{name} {what}")


def _tags(given: list[str] | None) -> dict[str, str]:
    return _by_facet("--tag", given)


def _changed(old: Mapping[Facet, str], new: Mapping[str, str]) -> dict[str, str]:
    """What stands for each facet now; one that is empty is taken away."""
    both = {**{facet.value: text for facet, text in old.items()}, **new}
    return {facet: text for facet, text in both.items() if text}


def _by_facet(option: str, given: list[str] | None) -> dict[str, str]:
    found = {}
    for one in given or []:
        facet, separator, value = one.partition("=")
        if not separator or facet not in set(Facet):
            known = ", ".join(Facet)
            raise Refused(f"{option} {one!r} is not facet=value; the facets are {known}.")
        found[facet] = value.strip()
    return found


def _means_a_file(what: str) -> bool:
    """Whether a name is a file's though there is none: the hub is not asked for it."""
    path = Path(what)
    return (
        path.is_absolute()
        or what.startswith((".", "~"))
        or os.path.lexists(path)  # a pipe, or a link that leads nowhere
        or (path.suffix.lower() in {*CONTENTS, *COMPRESSIONS} and path.parent.is_dir())
    )


def _proposal(settings: Settings, new: NewSource) -> Any:
    """What the first rows on the hub ask for, where formatter and columns are not both said."""
    if new.formatter and new.columns:
        return None
    return proposal_of_hub(settings, new)


def _lines(row: PreviewRow) -> Iterator[str]:
    labels = ", ".join(f"{facet.value}={value}" for facet, value in row.facets.items())
    yield f"--- {row.number}  {row.id}  {row.split}  {labels}"
    for message in row.messages:
        yield f"[{message.role}] {message.content}"
        yield from (f"  call {call}" for call in message.calls)


@contextmanager
def _bar(name: str, also: Progress | None = None) -> Iterator[Progress]:
    """A count on stderr where that is a terminal; ``also`` is told as well."""
    console = Console(stderr=True)
    with Bar(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(name, total=None)

        def advance(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)
            if also is not None:
                also(done, total)

        yield advance

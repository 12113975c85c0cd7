"""``calibrant sets import``, ``export`` and ``diff``: sets as files, and one beside another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from sqlmodel import Session

from app.artifacts import write_text
from app.calibration.built_set import BuiltSet
from app.calibration.commands import build_for, find_spec
from app.calibration.set_sources import missing_sources
from app.calibration.spec import SetSpec
from app.console import Json, complain, installed, say, tell, wide, write
from app.errors import Refused
from app.facets import Facet
from app.formatting import signed
from app.set_files.comparing import SideName, compare, find_side
from app.set_files.differences import SideBySide
from app.set_files.rows import FORMATS as ROW_FORMATS
from app.set_files.rows import write_rows
from app.set_files.service import exported, keep_imported, read_for
from app.settings import Settings
from app.sources.commands import fetch as fetch_sources
from app.sources.entry import slug
from app.yaml_lines import MAX_BYTES, decoded

app = typer.Typer()


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A quantizers YAML, or Calibrant's own.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what is in it; keep nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Read a set from a file, say everything there is to know of it, and keep it."""
    text = decoded(_content(file), file.name)
    with installed() as (session, _):
        found = read_for(session, text, file.name)
        notes = found.notes(text, file.name)
        kept = None if dry_run else keep_imported(session, found, notes).id
    document = found.as_json() | {"id": kept}
    if json:
        say(document)
        return
    for warning in found.warnings:
        complain(f"line {warning.line}: {warning.message}")
    named = {facet: found.values(facet) for facet in Facet}
    tell(
        wide("name", found.spec.name),
        wide("entries", f"{len(found.entries):,} of {found.repositories:,} data sets"),
        wide("rows", f"{found.rows:,}" + (" and all of some" if found.is_open else "")),
        wide("length", f"{found.spec.max_length:,} tokens"),
        wide("seed", str(found.spec.seed)),
        wide("spoken", f"{len(named[Facet.SPOKEN_LANGUAGE])} languages named"),
        wide("programming", f"{len(named[Facet.PROGRAMMING_LANGUAGE])} languages named"),
        wide("categories", ", ".join(each.title for each in found.categories) or "none"),
        wide("warnings", str(len(found.warnings))),
        wide("kept as", kept or "nothing (--dry-run)"),
    )


@app.command()
def fetch(
    set_: Annotated[
        str, typer.Argument(metavar="SET", help="A saved set's id, a set's file or 'starter'.")
    ],
    json: Json = False,
) -> None:
    """Fetch the rows of a set's sources that are not here yet; one that fails stops no other."""
    with installed() as (session, settings):
        missing = missing_sources(session, settings, find_spec(session, set_))
    fetch_sources([source.name for source in missing], json)


@app.command()
def export(
    set_: Annotated[
        str,
        typer.Argument(metavar="SET", help="A saved set, a set's file, 'starter', a built set."),
    ],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="yaml (the quantizers' where it can say the set, else ours), own, jsonl, parquet; "
            "several by comma.",
        ),
    ] = "yaml",
    out: Annotated[
        Path | None, typer.Option(help="A file, or a directory. Without it YAML goes to stdout.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="For jsonl and parquet of a set that is not built yet.")
    ] = None,
    json: Json = False,
) -> None:
    """Write a set as YAML, or its rendered rows as JSONL or Parquet."""
    forms = _forms(format_)
    files: list[dict[str, Any]] = []
    warnings: list[str] = []
    with installed() as (session, settings):
        side = find_side(session, settings, set_, files=True)
        for form in forms:
            place = _place(out, forms, side.built.id if side.built else slug(side.spec.name), form)
            if form in ROW_FORMATS:
                built = side.built or _build(session, settings, side.spec, model, form)
                warnings += write_rows(built, form, place, settings.sources_dir)
                files.append({"format": form, "path": str(place)})
                continue
            file = exported(session, side.spec, own=form == "own")
            warnings += file.warnings
            files.append({"format": file.format, "path": str(place)})
            if out is None and not json and len(forms) == 1:
                for warning in warnings:
                    complain(warning)
                write(file.text)
                return
            write_text(place, file.text)
    if json:
        say({"name": side.spec.name, "files": files, "warnings": warnings})
        return
    for warning in warnings:
        complain(warning)
    tell(*(wide(one["format"], one["path"]) for one in files))


@app.command()
def diff(
    a: Annotated[str, typer.Argument(help="A saved or built set, its file, or 'starter'.")],
    b: Annotated[str, typer.Argument(help="The same, to hold it against.")],
    json: Json = False,
) -> None:
    """What two sets differ in: by field, and where both are built by slice, facet and row."""
    with installed() as (session, settings):
        first, second = (find_side(session, settings, name, files=True) for name in (a, b))
        found = compare(settings, first, second)
    if json:
        say(found.model_dump(mode="json"))
        return
    tell(wide("A", _called(found.a)), wide("B", _called(found.b)))
    for change in (*found.composition, *found.made_of):
        tell(f"{change.place}: {change.a or 'not there'} → {change.b or 'not there'}")
    if found.held is None:
        complain(
            "Compositions only: rows are compared where both are built for the same tokenizer."
        )
        return
    counts = found.held.counts
    tell(
        wide("rows", f"{counts.both:,} in both ({counts.changed:,} of them changed), "
             f"{counts.only_a:,} only in A, {counts.only_b:,} only in B"),
        wide("tokens", f"{signed(found.held.total.tokens)} in B"),
    )  # fmt: skip
    named: list[tuple[str, SideBySide]] = [(one.name, one) for one in found.held.slices]
    named += [(one.label, one) for one in found.held.facets]
    for name, one in named:
        if one.tokens or one.rows:
            tell(f"  {name}: {signed(one.tokens)} tokens, {signed(one.rows)} rows")


def _called(one: SideName) -> str:
    return f"{one.name} ({one.id}{f', built as {one.built}' if one.built else ''})"


def _forms(given: str) -> list[str]:
    forms = [form.strip() for form in given.split(",") if form.strip()]
    known = ("yaml", "own", *ROW_FORMATS)
    for form in forms:
        if form not in known:
            raise Refused(f"There is no format {form!r}: give {', '.join(known)}.")
    if not forms:
        raise Refused(f"Give a format: {', '.join(known)}.")
    return list(dict.fromkeys(forms))


def _place(out: Path | None, forms: list[str], name: str, form: str) -> Path:
    """Where a file goes: ``out`` itself when it is one file's, else in it or in this directory."""
    ending = {"own": "calibrant.yaml"}.get(form, form)
    if out is not None and len(forms) == 1 and not out.is_dir():
        return out
    return (out or Path()) / f"{name}.{ending}"


def _build(
    session: Session, settings: Settings, spec: SetSpec, model: str | None, form: str
) -> BuiltSet:
    if model is None:
        raise Refused(
            f"{form} holds rendered rows: give --model, or the id of a built set instead of "
            f"{spec.name!r}."
        )
    return build_for(session, settings, spec, model)


def _content(file: Path) -> bytes:
    """A file's bytes, no more of them than a set's file may have. Raises Refused."""
    try:
        with file.open("rb") as opened:  # it may be a pipe, which has no size
            content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror}.") from error
    if len(content) > MAX_BYTES:
        raise Refused(f"{file} has more than {MAX_BYTES:,} bytes, the most a set's file may have.")
    return content

"""``calibrant sets audit``: what a built set is labelled with against what is in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer
from sqlmodel import Session

from app.audit.plan import PlanAudit, audit_plan, labels_of
from app.audit.report import Audit, Finding
from app.audit.service import audit_built_set
from app.calibration.built_set import MANIFEST, BuiltSet, load_built_set
from app.calibration.commands import build_for, find_spec, progress_bar
from app.calibration.models import CalibrationSet
from app.console import Json, complain, installed, say, tell, wide
from app.facets import Facet
from app.formatting import percent
from app.set_files.reading import read_set_file
from app.settings import Settings
from app.sources.catalogue import Source, list_sources
from app.sources.entry import SourceEntry

SHOWN = 12


def audit(
    set_: Annotated[
        str,
        typer.Argument(
            metavar="SET",
            help="A built set's id or directory; or a saved set's id, a YAML file or 'starter', "
            "which is built first where a model is said.",
        ),
    ],
    model: Annotated[
        str | None, typer.Option(help="The model to build for: a directory, or an added one's id.")
    ] = None,
    json: Json = False,
) -> None:
    """Hold a set's labels against its content; the report is kept beside the built set.

    Of a composition without a model what it shows of itself. What is found is data: the exit code
    is 0 whatever it is.
    """
    with installed() as (session, settings):
        built = _built(session, settings, set_, model)
        if built is None:
            _tell_plan(_planned(session, settings, set_), as_json=json)
            return
        with progress_bar("Audit") as bar:
            report = audit_built_set(
                built,
                sources_dir=settings.sources_dir,
                index_dir=settings.index_dir,
                progress=bar.advance,
            )
    if json:
        say(report.model_dump(mode="json"))
    else:
        tell(*_lines(report))


def _built(session: Session, settings: Settings, name: str, model: str | None) -> BuiltSet | None:
    """The built set somebody means; None for a composition, where no model is said to build it
    for."""
    for directory in (settings.sets_dir / name, Path(name)):
        if (directory / MANIFEST).is_file():
            return load_built_set(directory.resolve())
    return build_for(session, settings, find_spec(session, name), model) if model else None


def _planned(session: Session, settings: Settings, name: str) -> PlanAudit:
    """What a composition shows of itself, and what is to be said of its file."""
    sources: list[SourceEntry | Source] = [*list_sources(session, settings)]
    if session.get(CalibrationSet, name) or not Path(name).is_file():
        return audit_plan(find_spec(session, name), labels_of(sources))
    imported = read_set_file(Path(name).read_bytes(), name)
    found = audit_plan(imported.spec, labels_of([*sources, *imported.sources]))
    return found.model_copy(update={"warnings": imported.warnings})


def _tell_plan(found: PlanAudit, *, as_json: bool) -> None:
    if as_json:
        say(found.model_dump(mode="json"))
        return
    for warning in found.warnings:
        complain(f"line {warning.line}: {warning.message}")
    tell(
        found.verdict,
        *_sentences(found.findings),
        "",
        "Not built: with --model DIR the content of its rows is looked at.",
    )


def _sentences(findings: Iterable[Finding]) -> Iterator[str]:
    for finding in findings:
        yield f"{finding.severity:<9}{finding.sentence}"
        yield f"{'':<9}{finding.advice}"


def _lines(report: Audit) -> Iterator[str]:
    yield report.verdict
    yield from _sentences(report.findings)
    yield ""
    yield wide("set", f"{report.set_id}  {report.name}")
    yield wide("rows", f"{report.rows:,}")
    yield wide("tokens", f"{report.tokens:,}, {percent(report.boilerplate.share)} boilerplate")
    yield wide("cut", f"{report.lengths.cut_rows:,} rows, {report.lengths.cut_tokens:,} tokens")
    for facet in (Facet.SPOKEN_LANGUAGE, Facet.PROGRAMMING_LANGUAGE):
        fed = [truth for truth in report.facets[facet] if truth.found_tokens]
        fed.sort(key=lambda truth: -(truth.found_tokens or 0))
        listed = ", ".join(f"{truth.label} {truth.found_tokens:,}" for truth in fed[:SHOWN])
        more = f" and {len(fed) - SHOWN:,} more" if len(fed) > SHOWN else ""
        yield wide(facet.label.split()[0].lower(), (listed + more) or "none found")

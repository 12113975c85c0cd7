"""``calibrant sets audit``: what a built set is labelled with against what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from sqlmodel import Session

from app.calibration.audit_report import Audit
from app.calibration.auditing import audit_built_set
from app.calibration.built_set import MANIFEST, BuiltSet, load_built_set
from app.calibration.commands import build_for, find_spec, progress_bar
from app.console import Json, installed, say, tell, wide
from app.errors import Refused
from app.facets import Facet
from app.formatting import percent
from app.settings import Settings

SHOWN = 12


def audit(
    set_: Annotated[
        str,
        typer.Argument(
            metavar="SET",
            help="A built set's id or directory; or a saved set's id, a YAML file or 'starter', "
            "which is built first.",
        ),
    ],
    model: Annotated[
        str | None, typer.Option(help="The model to build for: a directory, or an added one's id.")
    ] = None,
    json: Json = False,
) -> None:
    """Hold a set's labels against its content; the report is kept beside the built set.

    What is found is data: the exit code is 0 whatever it is.
    """
    with installed() as (session, settings):
        built = _built(session, settings, set_, model)
        with progress_bar("Audit") as advance:
            report = audit_built_set(
                built,
                sources_dir=settings.sources_dir,
                index_dir=settings.index_dir,
                progress=advance,
            )
    if json:
        say(report.model_dump(mode="json"))
    else:
        tell(*_lines(report))


def _built(session: Session, settings: Settings, name: str, model: str | None) -> BuiltSet:
    """The built set somebody means. Raises Refused where it must be built and no model is said."""
    for directory in (settings.sets_dir / name, Path(name)):
        if (directory / MANIFEST).is_file():
            return load_built_set(directory.resolve())
    spec = find_spec(session, name)
    if model is None:
        raise Refused(
            f"{name} is a composition, not a built set: say with --model which model's tokenizer "
            "and chat template to build it with."
        )
    return build_for(session, settings, spec, model)


def _lines(report: Audit) -> Iterator[str]:
    yield report.verdict
    yield from (
        line
        for finding in report.findings
        for line in (f"{finding.severity:<9}{finding.sentence}", f"{'':<9}{finding.advice}")
    )
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

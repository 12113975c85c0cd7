"""What the page about a set's audit shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pyarrow.parquet as pq
from pydantic import BaseModel
from sqlmodel import Session

from app.audit.plan import PlanAudit, audit_plan, labels_of
from app.audit.report import Audit, Finding
from app.audit.service import AUDIT, load_audit
from app.calibration import service
from app.calibration.built_set import MANIFEST, BuiltSet, load_built_set
from app.calibration.composer import ModelChoice, model_choices
from app.errors import NotFound, Refused
from app.facets import Facet
from app.jobs import service as jobs
from app.jobs.states import JobKind, JobState
from app.paging import page_of
from app.settings import Settings
from app.sources.catalogue import list_sources

GROUPS_A_PAGE = 10
ROWS_A_GROUP = 3
MOST_ROWS = 50
EXCERPT = 1_200
VALUE_COLUMNS = (
    "facet", "value", "label", "labelled_rows", "labelled_tokens", "named_rows",
    "named_only_rows", "named_only_tokens", "found_rows", "found_tokens", "unlabelled_rows",
    "unlabelled_tokens",
)  # fmt: skip


class BuiltChoice(BaseModel):
    """A set that was built of a composition, and whether it was audited."""

    id: str
    rows: int
    tokens: int
    built_at: datetime
    is_audited: bool


class NextStep(BaseModel):
    """What to do about a finding, one click away."""

    label: str
    address: str


class FindingView(BaseModel):
    """A finding, where its rows are shown, and what can be done about it."""

    finding: Finding
    rows_address: str | None
    step: NextStep | None


class RowText(BaseModel):
    """One row of a built set, its text shortened to ``EXCERPT`` characters. ``similarity`` is that
    to the first of its group of duplicates."""

    row_id: str
    source: str
    slice: str
    tokens: int
    facets: dict[Facet, str]
    named: str | None
    text: str
    is_shortened: bool
    similarity: float | None = None


class GroupView(BaseModel):
    """The first rows of a group of duplicates beside each other; ``size`` counts all of it, and
    ``rows_address`` shows them."""

    rows: list[RowText]
    size: int
    rows_address: str


class DuplicatesPage(BaseModel):
    """Groups of duplicates, a page of them."""

    groups: list[GroupView]
    total: int
    page: int
    pages: int


class AuditView(BaseModel):
    """The audit of a composition's built set; ``report`` is None where there is none yet: then
    ``plan`` is what the composition shows of itself, and ``running`` the job that makes one."""

    set_id: str
    name: str
    built: list[BuiltChoice]
    built_id: str | None
    built_at: datetime | None
    report: Audit | None
    plan: PlanAudit | None
    findings: list[FindingView]
    duplicates: DuplicatesPage | None
    running: str | None
    running_state: JobState | None
    models: list[ModelChoice]


class RowsView(BaseModel):
    """Some rows of a built set, beside each other."""

    set_id: str
    name: str
    built_id: str
    rows: list[RowText]


def audit_view(
    session: Session, settings: Settings, set_id: str, built_id: str | None = None, page: int = 1
) -> AuditView:
    """The audit of one built set of a composition, by default the newest that was audited, or
    else the newest. Raises NotFound."""
    saved = service.get_set(session, set_id)
    choices = built_sets(settings, set_id, session)
    chosen = _chosen(choices, built_id)
    report = load_audit(settings.sets_dir / chosen.id) if chosen else None
    labels = labels_of(list_sources(session, settings))
    plan = None if report else audit_plan(service.spec_of(saved), labels)
    running = jobs.newest_unfinished(session, set_id, JobKind.AUDIT)
    return AuditView(
        set_id=saved.id,
        name=saved.name,
        built=choices,
        built_id=chosen.id if chosen else None,
        built_at=chosen.built_at if chosen else None,
        report=report,
        plan=plan,
        findings=list(_findings(set_id, chosen.id, report))
        if chosen and report
        else list(_findings(set_id, "", plan)),
        duplicates=_duplicates(settings, saved.id, chosen.id, report, page)
        if chosen and report
        else None,
        running=running.id if running else None,
        running_state=JobState(running.state) if running else None,
        models=model_choices(session),
    )


def rows_view(
    session: Session, settings: Settings, set_id: str, built_id: str, row_ids: Sequence[str]
) -> RowsView:
    """Some rows of a built set. Raises NotFound for another set's."""
    saved = service.get_set(session, set_id)
    chosen = _chosen(built_sets(settings, set_id, session), built_id)
    assert chosen is not None
    texts = _texts(settings.sets_dir / chosen.id, row_ids[:MOST_ROWS])
    found = [texts[row_id] for row_id in row_ids[:MOST_ROWS] if row_id in texts]
    return RowsView(set_id=saved.id, name=saved.name, built_id=chosen.id, rows=found)


def report_of(session: Session, settings: Settings, set_id: str, built_id: str | None) -> Audit:
    """The report itself. Raises NotFound where there is none."""
    chosen = _chosen(built_sets(settings, set_id, session), built_id)
    report = load_audit(settings.sets_dir / chosen.id) if chosen else None
    if report is None:
        raise NotFound(f"Set {set_id!r} was not audited yet.")
    return report


def built_sets(settings: Settings, set_id: str, session: Session) -> list[BuiltChoice]:
    """The sets that were built of a saved composition, the newest first."""
    wanted = service.spec_of(service.get_set(session, set_id)).model_dump(mode="json")
    found = []
    for manifest in settings.sets_dir.glob(f"[!.]*/{MANIFEST}"):
        status = manifest.stat()
        built = _loaded(manifest.parent, status.st_mtime_ns)
        if built is not None and built.identity.get("spec") == wanted:
            found.append(
                BuiltChoice(
                    id=built.id,
                    rows=built.rows,
                    tokens=built.tokens,
                    built_at=datetime.fromtimestamp(status.st_mtime, UTC),
                    is_audited=_is_audited(built.directory),
                )
            )
    return sorted(found, key=lambda one: (one.built_at, one.id), reverse=True)


def value_rows(report: Audit | None) -> Iterator[list[Any]]:
    """The values of every facet as rows of ``VALUE_COLUMNS``."""
    for facet, truths in (report.facets if report else {}).items():
        for truth in truths:
            known = truth.model_dump()
            yield [facet.value, *(known[column] for column in VALUE_COLUMNS[1:])]


@lru_cache(maxsize=512)
def _loaded(directory: Path, changed: int) -> BuiltSet | None:  # noqa: ARG001, part of the key
    try:
        return load_built_set(directory)
    except Refused:  # of an older format: it cannot be of today's composition
        return None


def _is_audited(directory: Path) -> bool:
    place = directory / AUDIT
    return place.is_file() and _audit_of(directory, place.stat().st_mtime_ns) is not None


@lru_cache(maxsize=64)
def _audit_of(directory: Path, changed: int) -> Audit | None:  # noqa: ARG001, part of the key
    return load_audit(directory)


def _chosen(choices: Sequence[BuiltChoice], built_id: str | None) -> BuiltChoice | None:
    if built_id is not None:
        for choice in choices:
            if choice.id == built_id:
                return choice
        raise NotFound(f"No set {built_id!r} was built of this composition.")
    audited = [choice for choice in choices if choice.is_audited]
    return next(iter(audited or choices), None)


def _findings(
    set_id: str, built_id: str, report: Audit | PlanAudit | None
) -> Iterator[FindingView]:
    for finding in report.findings if report else ():
        yield FindingView(
            finding=finding,
            rows_address=_rows_address(set_id, built_id, finding.rows) if finding.rows else None,
            step=_next_step(set_id, finding),
        )


def _next_step(set_id: str, finding: Finding) -> NextStep | None:
    composer = f"/sets/new?like={set_id}"
    match finding.kind:
        case "named_but_absent" | "named_more_than_fed" if finding.facet:
            asked = [("facet", finding.facet.value), *(("value", v) for v in finding.values)]
            label = "Compose a copy with a slice of them"
            return NextStep(label=label, address=f"{composer}&{urlencode(asked)}")
        case "duplicates" | "leak":
            return NextStep(
                label="Compose a copy without duplicates", address=f"{composer}&duplicates=drop"
            )
        case "cut" | "one_long_row" | "boilerplate" | "counted_in_rows":
            return NextStep(label="Compose a copy", address=composer)
        case "mislabelled" | "fed_but_unlabelled" | "asked_in_vain":
            return NextStep(label="Look at the sources", address="/sources")
        case _:
            return None


def _duplicates(
    settings: Settings, set_id: str, built_id: str, report: Audit, page: int
) -> DuplicatesPage:
    shown, page, pages = page_of(report.duplicates, page, GROUPS_A_PAGE)
    wanted = [row for group in shown for row in group.rows[:ROWS_A_GROUP]]
    texts = _texts(settings.sets_dir / built_id, wanted)
    groups = [
        GroupView(
            rows=[
                texts[row].model_copy(update={"similarity": alike})
                for row, alike in zip(
                    group.rows[:ROWS_A_GROUP], group.similarities[:ROWS_A_GROUP], strict=True
                )
            ],
            size=len(group.rows),
            rows_address=_rows_address(set_id, built_id, group.rows),
        )
        for group in shown
    ]
    return DuplicatesPage(groups=groups, total=len(report.duplicates), page=page, pages=pages)


def _rows_address(set_id: str, built_id: str, rows: Sequence[str]) -> str:
    query = urlencode([("built", built_id), *(("row", row) for row in rows[:MOST_ROWS])])
    return f"/sets/{set_id}/audit/rows?{query}"


def _texts(directory: Path, row_ids: Sequence[str]) -> dict[str, RowText]:
    """Rows of a built set by their ids; read are those alone."""
    if not row_ids:
        return {}
    table = pq.read_table(
        load_built_set(directory).rows_file,
        columns=[
            "row_id", "source", "slice", *(facet.value for facet in Facet), "named_value", "text",
            "input_ids",
        ],
        filters=[("row_id", "in", sorted(set(row_ids)))],
    )  # fmt: skip
    return {row["row_id"]: _row_text(row) for row in table.to_pylist()}


def _row_text(row: dict[str, Any]) -> RowText:
    return RowText(
        row_id=row["row_id"],
        source=row["source"],
        slice=row["slice"],
        tokens=len(row["input_ids"]),
        facets={facet: row[facet.value] for facet in Facet if row[facet.value]},
        named=row["named_value"],
        text=row["text"][:EXCERPT],
        is_shortened=len(row["text"]) > EXCERPT,
    )

"""What the page that holds jobs side by side shows."""

from __future__ import annotations

from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

from pydantic import BaseModel
from sqlmodel import Session

from app.base_models import service as base_models
from app.checkpoints.manifest import package_versions
from app.comparison.paired import Difference, Paired, compare_rows
from app.comparison.settings_of import Setting, differing, settings_of
from app.comparison.wording import method_of, sentences_of
from app.coverage.profile import Profile, ProfileRefused
from app.coverage.service import profile_of
from app.coverage.summary import balance, experts_reached
from app.errors import CheckpointRefused, NotFound, Refused
from app.formatting import counted
from app.jobs import files, service
from app.jobs.models import Job
from app.jobs.spec import Evaluation, JobResult, LayerReport
from app.jobs.states import JobKind, JobState
from app.jobs.views import JobRow, job_row
from app.paging import page_of
from app.quality.artifacts import evaluation_in
from app.quality.evaluated_rows import EvaluatedRows, RowsRefused
from app.quality.gates import Verdict, judge, verdict_of
from app.quality.service import get_gates
from app.settings import Settings

First = Literal["named", "oldest"]
MOST_JOBS = 6
CHOICES = 25


class ComparisonRefused(Refused):
    """Jobs that cannot be held side by side."""


class SubjectView(BaseModel):
    """One of the things compared: ``letter`` is what the page calls it. Figures that were not
    measured are None, and so is ``gates`` where none is set; the problems say which of its files
    cannot be read."""

    letter: str
    id: str
    name: str
    recipe: str | None = None
    state: str | None = None
    set_id: str | None = None
    evaluation: Evaluation | None = None
    bytes_after: int | None = None
    is_verified: bool | None = None
    gates: Verdict | None = None
    coverage_problem: str | None = None
    versions_problem: str | None = None


class CoverageRow(BaseModel):
    """A figure of coverage by its name and unit, and its value for each job."""

    figure: str
    unit: str
    values: list[float | None]


class LayerRow(BaseModel):
    """A decoder layer, and its error in each job, None where it has none."""

    layer: int
    reports: list[LayerReport | None]


class PairView(BaseModel):
    """One subject against the first, on the rows both were measured on; without them ``problem``
    says why there is no comparison. ``method`` is how slices are told from chance."""

    first: str
    second: str
    problem: str | None = None
    shared: int = 0
    overall: Difference | None = None
    slices: list[Difference] = []
    sentences: list[str] = []
    method: str | None = None


class ComparisonView(BaseModel):
    """Jobs side by side; every later one is held against the first."""

    jobs: str
    subjects: list[SubjectView]
    settings: list[Setting]
    same_settings: int
    coverage: list[CoverageRow]
    layers: list[LayerRow]
    pairs: list[PairView]


class ChoiceView(BaseModel):
    """Jobs to choose from, the newest first."""

    jobs: list[JobRow]
    total: int
    page: int
    pages: int


def chosen_ids(jobs: list[str]) -> list[str]:
    """The ids asked for, each once, from repeated fields and from lists with commas."""
    ids = [part.strip() for field in jobs for part in field.split(",")]
    return list(dict.fromkeys(part for part in ids if part))


def choice_view(session: Session, settings: Settings, page: int) -> ChoiceView:
    """Jobs that can be compared: they quantize and have ended well."""
    found = service.list_jobs(session, state=JobState.SUCCEEDED, kind=JobKind.QUANTIZE, limit=1000)
    shown, page, pages = page_of(found, page, CHOICES)
    rows = [job_row(job, settings) for job in shown]
    return ChoiceView(jobs=rows, total=len(found), page=page, pages=pages)


def comparison_view(
    session: Session, settings: Settings, ids: list[str], first: First = "named"
) -> ComparisonView:
    """Jobs side by side, every later one held against the first: the one named first, or the
    oldest, as somebody who ticked them in a list means it.

    Raises NotFound for an unknown job, ComparisonRefused for fewer than two or more than six, and
    for jobs of different models.
    """
    _require_a_few(ids)
    jobs = [service.get_job(session, job_id) for job_id in ids]
    _require_one_model(session, jobs)
    if first == "oldest":
        jobs.sort(key=lambda job: job.created_at)
    gates = get_gates(session)
    results = [JobResult.model_validate(job.result) if job.result else JobResult() for job in jobs]
    subjects = [
        SubjectView(
            letter=letter,
            id=job.id,
            name=job.name,
            recipe=job.recipe,
            state=job.state,
            set_id=job.set_id,
            evaluation=result.evaluation,
            bytes_after=result.bytes_after,
            is_verified=result.verification.ok if result.verification else None,
            gates=verdict_of(judge(gates, result.evaluation, result.verification)),
        )
        for letter, job, result in zip(ascii_uppercase, jobs, results, strict=False)
    ]
    versions = [_versions(subject, r) for subject, r in zip(subjects, results, strict=True)]
    different, same = differing(
        [settings_of(job.spec, each) for job, each in zip(jobs, versions, strict=True)]
    )
    rows = [settings.jobs_dir / job.id / files.EVALUATED_ROWS for job in jobs]
    return ComparisonView(
        jobs=",".join(job.id for job in jobs),
        subjects=subjects,
        settings=different,
        same_settings=same,
        coverage=_coverage(settings, subjects),
        layers=_layers([result.layers for result in results]),
        pairs=_pairs(subjects, rows),
    )


def comparison_of_directories(directories: list[Path]) -> ComparisonView:
    """Evaluations that the command line kept, side by side: what ``evaluate --out`` wrote.

    Raises ComparisonRefused for fewer than two or more than six, and when no two of them can be
    compared: there is nothing else to show.
    """
    _require_a_few([str(each) for each in directories])
    subjects = []
    for letter, directory in zip(ascii_uppercase, directories, strict=False):
        evaluation = evaluation_in(directory)
        name = directory.name
        subjects.append(
            SubjectView(letter=letter, id=str(directory), name=name, evaluation=evaluation)
        )
    pairs = _pairs(subjects, [directory / files.EVALUATED_ROWS for directory in directories])
    problems = [pair.problem for pair in pairs if pair.problem]
    if len(problems) == len(pairs):
        raise ComparisonRefused(problems[0])
    return ComparisonView(
        jobs=",".join(str(each) for each in directories),
        subjects=subjects,
        settings=[],
        same_settings=0,
        coverage=[],
        layers=[],
        pairs=pairs,
    )


def _require_a_few(ids: list[str]) -> None:
    if not 2 <= len(ids) <= MOST_JOBS:
        raise ComparisonRefused(
            f"{counted(len(ids), 'job')} {'was' if len(ids) == 1 else 'were'} chosen: "
            f"choose two to {MOST_JOBS}, and give each once."
        )


def _require_one_model(session: Session, jobs: list[Job]) -> None:
    models = [base_models.get_model(session, job.model_id) for job in jobs]
    for job, model in zip(jobs, models, strict=True):
        if model.fingerprint != models[0].fingerprint:
            raise ComparisonRefused(
                f"Job {jobs[0].id} is of {models[0].name} and job {job.id} of {model.name}: only "
                "jobs of one model can be compared."
            )


def _versions(subject: SubjectView, result: JobResult) -> dict[str, str]:
    """The packages that made a job's checkpoint; none, and why, where they cannot be read."""
    try:
        return package_versions(result.checkpoint)
    except CheckpointRefused as error:
        subject.versions_problem = error.sentence
        return {}


def _coverage(settings: Settings, subjects: list[SubjectView]) -> list[CoverageRow]:
    """Summary figures of each job's coverage; empty when none has any."""
    columns: list[dict[str, float]] = []
    for subject in subjects:
        columns.append({})
        if not (settings.jobs_dir / subject.id / files.COVERAGE).is_file():
            continue
        try:
            columns[-1] = _coverage_figures(profile_of(settings, subject.id))
        except ProfileRefused as error:
            subject.coverage_problem = error.sentence
    names = {
        "tokens": ("Tokens", "tokens"),
        "rows": ("Rows", "rows"),
        "reached": ("Experts reached", "experts"),
        "starved": ("Starved experts", "experts"),
        "smallest": ("Worst fed expert", "tokens"),
        "entropy": ("Evenness of load (entropy, 1 is even)", ""),
        "gini": ("Gini of load (0 is even)", ""),
    }
    return [
        CoverageRow(figure=label, unit=unit, values=[column.get(key) for column in columns])
        for key, (label, unit) in names.items()
        if any(key in column for column in columns)
    ]


def _coverage_figures(profile: Profile) -> dict[str, float]:
    """A profile in figures by key."""
    layers = [layer for layer in balance(profile) if layer.tokens]
    reached, total = experts_reached(profile)
    found: dict[str, float] = {"tokens": profile.total_tokens, "rows": len(profile.row_ids)}
    if total:
        found |= {
            "reached": reached,
            "starved": sum(layer.starved for layer in layers),
            "smallest": min((layer.smallest for layer in layers), default=0),
            "entropy": _mean([layer.entropy for layer in layers]),
            "gini": _mean([layer.gini for layer in layers]),
        }
    return found


def _mean(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0


def _layers(reports: list[list[LayerReport]]) -> list[LayerRow]:
    by_layer = [{report.layer: report for report in each} for each in reports]
    layers = sorted({layer for each in by_layer for layer in each})
    return [
        LayerRow(layer=layer, reports=[each.get(layer) for each in by_layer]) for layer in layers
    ]


def _pairs(subjects: list[SubjectView], files: list[Path]) -> list[PairView]:
    first = subjects[0]
    pairs = []
    for subject, file in zip(subjects[1:], files[1:], strict=True):
        pair: dict[str, Any] = {"first": first.letter, "second": subject.letter}
        try:
            found = compare_rows(_rows(first, files[0]), _rows(subject, file))
        except (RowsRefused, NotFound) as error:
            pairs.append(PairView(**pair, problem=error.sentence))
            continue
        pairs.append(_pair(first, subject, found))
    return pairs


def _rows(subject: SubjectView, file: Path) -> EvaluatedRows:
    if not file.is_file():
        why = (
            "its rows were not kept: it is older than their keeping. Evaluate it again"
            if subject.evaluation
            else "its error on held-out rows was not measured"
        )
        raise RowsRefused(f"{subject.letter} ({subject.id}) cannot be compared by slice: {why}.")
    return EvaluatedRows.load(file)


def _pair(first: SubjectView, second: SubjectView, found: Paired) -> PairView:
    return PairView(
        first=first.letter,
        second=second.letter,
        shared=found.shared,
        overall=found.overall,
        slices=found.slices,
        sentences=sentences_of(first.letter, second.letter, found),
        method=method_of(found) if found.slices else None,
    )

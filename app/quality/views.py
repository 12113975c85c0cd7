"""What the page about a job's errors shows."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from sqlmodel import Session

from app.jobs import service
from app.jobs.spec import Evaluation, LayerReport, ModuleReport
from app.jobs.views import JobRow, job_row
from app.quality.artifacts import evaluation_of_job, layer_reports, module_reports
from app.quality.gates import Gates
from app.quality.service import gates_set_at, get_gates
from app.quality.sorted_tables import SortedQuery, SortedTable
from app.quality.tables import Name, sorted_table
from app.settings import Settings

PAGE_ROWS = 30


def _blank_is_none(text: Any) -> Any:
    """A field of a form that nothing was typed into asks for nothing."""
    return None if text == "" else text


class Sort(StrEnum):
    """What the table of modules is sorted by."""

    LAYER = "layer"
    MODULE = "module"
    ERROR = "relative_mse"
    SQNR = "sqnr_db"


class ModuleQuery(BaseModel):
    """Which modules to show: those whose name contains ``contains``, sorted, one page."""

    # ``format`` and whatever else the page's address carries is somebody else's.
    model_config = ConfigDict(extra="ignore")

    sort: Sort = Sort.ERROR
    descending: bool = True
    contains: Annotated[str, Field(max_length=200)] = ""
    layer: Annotated[int | None, BeforeValidator(_blank_is_none)] = None
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1


class ModulesView(BaseModel):
    """A page of the table of modules; ``total`` is how many match, ``all`` how many there are."""

    job_id: str
    query: ModuleQuery
    modules: list[ModuleReport]
    total: int
    all: int
    pages: int


class ErrorsView(BaseModel):
    """The error a job left: by layer and module on weights, by slice on held-out rows.

    A part that was not measured is None or empty.
    """

    job: JobRow
    layers: list[LayerReport]
    worst: LayerReport | None
    modules: ModulesView
    evaluation: Evaluation | None
    tables: list[SortedTable]


class GatesView(BaseModel):
    """The gates, as they are set and as the form shows them; ``problem`` says what was wrong with
    what was sent."""

    gates: Gates
    fields: dict[str, Any]
    set_at: datetime | None
    problem: str | None = None


def gates_view(
    session: Session, fields: dict[str, Any] | None = None, problem: str | None = None
) -> GatesView:
    """The gates; ``fields`` are what a person typed, by default the gates that are set."""
    gates = get_gates(session)
    if fields is None:
        fields = {
            name: "" if value is None else value for name, value in gates.model_dump().items()
        }
    return GatesView(gates=gates, fields=fields, set_at=gates_set_at(session), problem=problem)


def errors_view(
    session: Session, settings: Settings, job_id: str, query: ModuleQuery
) -> ErrorsView:
    """What was measured of a job's errors so far. Raises NotFound."""
    job = service.get_job(session, job_id)
    layers = layer_reports(session, settings, job_id)
    modules = module_reports(settings, job_id)
    plain = SortedQuery()
    tables = [sorted_table(session, settings, job_id, name, plain) for name in Name]
    return ErrorsView(
        job=job_row(job, settings),
        layers=layers,
        worst=max(layers, key=lambda layer: layer.relative_mse, default=None),
        modules=chosen_modules(job_id, modules, query),
        evaluation=evaluation_of_job(settings, job_id),
        tables=tables,
    )


def matching_modules(modules: list[ModuleReport], query: ModuleQuery) -> list[ModuleReport]:
    """The modules that match a query, sorted; equal ones by their name."""
    found = [
        module
        for module in modules
        if query.contains in module.module and query.layer in (None, module.layer)
    ]
    found.sort(key=lambda module: module.module)
    found.sort(key=lambda module: _sort_key(module, query.sort), reverse=query.descending)
    return found


def chosen_modules(job_id: str, modules: list[ModuleReport], query: ModuleQuery) -> ModulesView:
    """The page of modules a query asks for; a page past the last is the last."""
    found = matching_modules(modules, query)
    pages = max(1, -(-len(found) // PAGE_ROWS))
    page = min(query.page, pages)
    start = (page - 1) * PAGE_ROWS
    return ModulesView(
        job_id=job_id,
        query=query.model_copy(update={"page": page}),
        modules=found[start : start + PAGE_ROWS],
        total=len(found),
        all=len(modules),
        pages=pages,
    )


def _sort_key(module: ModuleReport, sort: Sort) -> Any:
    return getattr(module, sort.value)

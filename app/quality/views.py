"""What the page about a job's errors shows."""

from __future__ import annotations

import secrets
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, computed_field
from sqlmodel import Session

from app.base_models.service import get_model
from app.errors import Refused
from app.formatting import SIZE_UNITS, size_unit
from app.jobs import service
from app.jobs.spec import Evaluation, JobResult, JobSpec, LayerReport, ModuleReport
from app.jobs.views import JobRow, job_row
from app.paging import page_of
from app.quality.artifacts import evaluation_of_job, layer_reports, module_reports
from app.quality.gates import Gates
from app.quality.sensitivity import Proposal, propose
from app.quality.service import gates_set_at, get_gates
from app.quality.sorted_tables import SortedQuery, SortedTable
from app.quality.tables import Name, sorted_table
from app.recipes.files import dump_recipe
from app.recipes.service import weights_of
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
    """A page of the table of modules; ``total`` is how many match, ``all`` how many there are,
    ``chart`` the address of the chart of those that match."""

    job_id: str
    query: ModuleQuery
    modules: list[ModuleReport]
    total: int
    all: int
    pages: int
    chart: str


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


class BudgetQuery(BaseModel):
    """The largest checkpoint allowed, in ``unit``; by default a tenth more than there is."""

    model_config = ConfigDict(extra="ignore")

    budget: Annotated[
        Annotated[float, Field(gt=0, le=1e7)] | None, BeforeValidator(_blank_is_none)
    ] = None
    unit: Literal["B", "kB", "MB", "GB", "TB", "PB"] = "GB"

    @property
    def bytes(self) -> int | None:
        """The same in bytes."""
        return None if self.budget is None else round(self.budget * SIZE_UNITS[self.unit])


class StepRow(BaseModel):
    """A step of a proposal; errors are shares of all the layers' output errors added up."""

    unit: str
    weights: int
    bits_before: int
    bits_after: int
    bytes_added: int
    error_removed: float
    size: int
    error_left: float
    is_taken: bool


class SensitivityView(BaseModel):
    """What to keep in more bits under a budget in bytes. ``problem`` says why there is no
    proposal; ``is_of_outputs`` whether layers' outputs were measured, or weights alone. Where no
    step fits, ``smallest`` is the one that needs the least, and ``least_budget`` what it needs.
    ``unit`` is the one that sizes of the checkpoint's order are told in."""

    job: JobRow
    budget: int | None = None
    size_now: int | None = None
    size: int | None = None
    error_now: float | None = None
    error_left: float | None = None
    is_of_outputs: bool = False
    taken: int = 0
    steps: list[StepRow] = []
    total_steps: int = 0
    smallest: str | None = None
    least_budget: int | None = None
    recipe_name: str | None = None
    yaml: str | None = None
    problem: str | None = None

    @computed_field
    @property
    def unit(self) -> str:
        """The unit of the budget's field and of the chart."""
        return size_unit(self.size_now or 0)


def sensitivity_view(
    session: Session, settings: Settings, job_id: str, budget: int | None
) -> SensitivityView:
    """A proposal under a budget, by default a tenth more than the checkpoint has. Raises NotFound;
    what keeps a proposal from being made is its ``problem``."""
    job = service.get_job(session, job_id)
    row = job_row(job, settings)
    result = JobResult.model_validate(job.result) if job.result else JobResult()
    recipe = JobSpec.model_validate(job.spec).recipe
    modules = module_reports(settings, job_id)
    if recipe is None or result.bytes_after is None or not modules:
        problem = "Not measured yet: a proposal needs a finished quantize job."
        return SensitivityView(job=row, problem=problem)
    # As few digits as a person would type.
    budget = budget or round(float(f"{result.bytes_after * 1.1:.4g}"))
    try:
        model = get_model(session, job.model_id)
        stored = weights_of(model.path, model.fingerprint, model.name).bytes_each
        found = propose(recipe, modules, result.layers, result.bytes_after, budget, stored)
    except Refused as error:
        size = result.bytes_after
        return SensitivityView(job=row, budget=budget, size_now=size, problem=error.sentence)
    smallest = None if found.steps else found.smallest
    return SensitivityView(
        job=row,
        budget=budget,
        size_now=found.size_now,
        size=found.size,
        error_now=found.error_now,
        error_left=found.error_left,
        is_of_outputs=found.is_of_outputs,
        taken=len(found.steps),
        steps=_step_rows(found),
        total_steps=len(found.curve),
        smallest=smallest.unit.name if smallest else None,
        least_budget=found.size_now + smallest.bytes_added if smallest else None,
        recipe_name=f"{recipe.name}-mixed-{secrets.token_hex(2)}",
        yaml=dump_recipe(found.recipe),
    )


def _step_rows(found: Proposal) -> list[StepRow]:
    """The steps that are taken, then those that did not fit."""
    taken = {(step.unit.name, step.bits_after) for step in found.steps}
    rest = [step for step in found.curve if (step.unit.name, step.bits_after) not in taken]
    return [
        StepRow(
            unit=step.unit.name,
            weights=step.unit.weights,
            bits_before=step.bits_before,
            bits_after=step.bits_after,
            bytes_added=step.bytes_added,
            error_removed=step.error_removed,
            size=step.size,
            error_left=step.error_left,
            is_taken=at < len(found.steps),
        )
        for at, step in enumerate([*found.steps, *rest])
    ]


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
    shown, page, pages = page_of(found, query.page, PAGE_ROWS)
    matched = query.model_dump(include={"contains", "layer"}, exclude_none=True)
    return ModulesView(
        job_id=job_id,
        query=query.model_copy(update={"page": page}),
        modules=shown,
        total=len(found),
        all=len(modules),
        pages=pages,
        chart=f"/jobs/{job_id}/errors/modules/chart?{urlencode(matched)}",
    )


def _sort_key(module: ModuleReport, sort: Sort) -> Any:
    return getattr(module, sort.value)

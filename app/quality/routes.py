"""The page about a job's errors."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from app.dependencies import SessionDep, SettingsDep
from app.errors import Refused
from app.jobs.service import get_job
from app.jobs.spec import LayerReport
from app.negotiation import (
    SubmissionDep,
    Table,
    answer,
    done,
    takes,
    wants_html,
)
from app.quality.artifacts import module_reports
from app.quality.charts import error_by_kind, error_by_size
from app.quality.gates import Gates
from app.quality.measures import errors_by_kind
from app.quality.service import set_gates
from app.quality.sorted_tables import SortedQuery, SortedTable
from app.quality.tables import Name, chart_of, sorted_table, whole_table
from app.quality.views import (
    BudgetQuery,
    ErrorsView,
    GatesView,
    ModuleQuery,
    ModulesView,
    SensitivityView,
    StepRow,
    chosen_modules,
    errors_view,
    gates_view,
    matching_modules,
    sensitivity_view,
)
from app.validation import validated

router = APIRouter(tags=["quality"])

LAYER_COLUMNS = tuple(LayerReport.model_fields)
STEP_COLUMNS = tuple(StepRow.model_fields)
MODULE_COLUMNS = ("layer", "module", "relative_mse", "sqnr_db")


@router.get("/jobs/{job_id}/errors", response_model=ErrorsView)
def errors_page(
    request: Request,
    session: SessionDep,
    settings: SettingsDep,
    job_id: str,
    query: Annotated[ModuleQuery, Query()],
) -> Response:
    """Error by layer and module, and divergence on held-out rows; its CSV is the layers."""
    view = errors_view(session, settings, job_id, query)
    rows = ([getattr(each, column) for column in LAYER_COLUMNS] for each in view.layers)
    table = Table(f"errors-by-layer-{job_id}", LAYER_COLUMNS, rows)
    return answer(request, view, "quality/show.html", table=table)


@router.get("/jobs/{job_id}/errors/tables/{name}", response_model=SortedTable)
def quality_table(
    request: Request,
    session: SessionDep,
    settings: SettingsDep,
    job_id: str,
    name: Name,
    query: Annotated[SortedQuery, Query()],
) -> Response:
    """One of the tables of a job's quality, a page of it; its CSV is all of it."""
    get_job(session, job_id)
    view = sorted_table(session, settings, job_id, name, query)
    table = whole_table(session, settings, job_id, name, query)
    return answer(request, view, "quality/table.html", table=table)


@router.get("/jobs/{job_id}/errors/charts/{name}")
def quality_chart(
    session: SessionDep, settings: SettingsDep, job_id: str, name: Name
) -> dict[str, Any]:
    """The chart of one of the tables: a plotly figure."""
    get_job(session, job_id)
    return chart_of(session, settings, job_id, name)


@router.get("/jobs/{job_id}/errors/modules", response_model=ModulesView)
def modules_table(
    request: Request,
    session: SessionDep,
    settings: SettingsDep,
    job_id: str,
    query: Annotated[ModuleQuery, Query()],
) -> Response:
    """The modules that match, a page of them; its CSV is all of them."""
    get_job(session, job_id)
    modules = module_reports(settings, job_id)
    found = matching_modules(modules, query)
    rows = ([getattr(each, column) for column in MODULE_COLUMNS] for each in found)
    table = Table(f"errors-by-module-{job_id}", MODULE_COLUMNS, rows)
    view = chosen_modules(job_id, modules, query)
    return answer(request, view, "quality/modules.html", table=table)


@router.get("/jobs/{job_id}/errors/modules/chart")
def modules_chart(
    session: SessionDep, settings: SettingsDep, job_id: str, query: Annotated[ModuleQuery, Query()]
) -> dict[str, Any]:
    """The modules that match, by layer and kind: a plotly figure."""
    get_job(session, job_id)
    found = matching_modules(module_reports(settings, job_id), query)
    return error_by_kind(errors_by_kind(found))


BudgetDep = Annotated[BudgetQuery, Query()]


@router.get("/jobs/{job_id}/sensitivity", response_model=SensitivityView)
def sensitivity_page(
    request: Request,
    session: SessionDep,
    settings: SettingsDep,
    job_id: str,
    query: BudgetDep,
) -> Response:
    """What to keep in more bits under a size budget; its CSV is every step."""
    view = sensitivity_view(session, settings, job_id, query.bytes)
    rows = ([getattr(step, name) for name in STEP_COLUMNS] for step in view.steps)
    table = Table(f"sensitivity-{job_id}", STEP_COLUMNS, rows)
    return answer(request, view, "quality/sensitivity.html", table=table)


@router.get("/jobs/{job_id}/sensitivity/chart")
def sensitivity_chart(
    session: SessionDep, settings: SettingsDep, job_id: str, query: BudgetDep
) -> dict[str, Any]:
    """The predicted error by size: a plotly figure."""
    view = sensitivity_view(session, settings, job_id, query.bytes)
    steps = sorted((step.size, step.unit, step.error_left) for step in view.steps if step.is_taken)
    start = ("as it is", view.size_now or 0, view.error_now or 0.0)
    points = [start, *((unit, size, left) for size, unit, left in steps)]
    return error_by_size(points, view.budget, view.unit)


@router.get("/gates", response_model=GatesView)
def gates_page(request: Request, session: SessionDep) -> Response:
    """What a checkpoint should reach."""
    return answer(request, gates_view(session), "quality/gates.html")


@router.post("/gates", response_model=GatesView, openapi_extra=takes(Gates))
def change_gates(request: Request, session: SessionDep, submission: SubmissionDep) -> Response:
    """Set the gates anew. A form that is not right comes back with a sentence."""
    fields = {name: submission.text(name) for name in Gates.model_fields}
    given = {name: value for name, value in fields.items() if value}
    try:
        gates = validated(Gates, submission.document if submission.is_json else given)
    except Refused as error:
        if not wants_html(request):
            raise
        view = gates_view(session, fields, problem=error.sentence)
        return answer(request, view, "quality/gates.html", status=422)
    set_gates(session, gates)
    return done(request, "/checkpoints", gates_view(session))

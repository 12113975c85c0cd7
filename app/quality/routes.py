"""The page about a job's errors."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from app.dependencies import SessionDep, SettingsDep
from app.jobs.service import get_job
from app.jobs.spec import LayerReport
from app.negotiation import Table, answer
from app.quality.charts import error_by_layer
from app.quality.views import (
    ErrorsView,
    ModuleQuery,
    ModulesView,
    chosen_modules,
    errors_view,
    layer_reports,
    matching_modules,
    module_reports,
)

router = APIRouter(tags=["quality"])

LAYER_COLUMNS = tuple(LayerReport.model_fields)
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


@router.get("/jobs/{job_id}/errors/chart")
def errors_chart(session: SessionDep, settings: SettingsDep, job_id: str) -> dict[str, Any]:
    """The chart of the errors by layer: a plotly figure."""
    return error_by_layer(layer_reports(session, settings, job_id))


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

"""The page that holds jobs side by side."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from app.comparison.charts import differences_by_slice, errors_by_layer
from app.comparison.paired import Difference
from app.comparison.views import (
    ComparisonRefused,
    ComparisonView,
    First,
    choice_view,
    chosen_ids,
    comparison_view,
)
from app.dependencies import SessionDep, SettingsDep
from app.negotiation import Table, answer, wants_html

router = APIRouter(tags=["comparison"])

SLICE_COLUMNS = ("first", "second", *Difference.model_fields, *Difference.model_computed_fields)
LAYER_COLUMNS = (
    "layer", "job", "relative_mse", "sqnr_db", "output_relative_mse", "output_sqnr_db",
    "held_out_relative_mse", "held_out_sqnr_db",
)  # fmt: skip

JobsQuery = Annotated[
    list[str], Query(description="Ids of jobs, repeated or with commas between them.")
]


@router.get("/compare", response_model=ComparisonView)
def compare_page(
    request: Request,
    session: SessionDep,
    settings: SettingsDep,
    jobs: JobsQuery = [],  # noqa: B006
    first: First = "named",
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> Response:
    """Jobs side by side; its CSV is the slices. Without a job a page to choose them on."""
    ids = chosen_ids(jobs)
    if not ids and wants_html(request):
        return answer(request, choice_view(session, settings, page), "comparison/choose.html")
    view = comparison_view(session, settings, ids, first)
    rows = (
        [pair.first, pair.second, *one.model_dump().values()]
        for pair in view.pairs
        for one in (*([pair.overall] if pair.overall else []), *pair.slices)
    )
    table = Table(f"compare-{'-'.join(ids)}", SLICE_COLUMNS, rows)
    return answer(request, view, "comparison/show.html", table=table)


@router.get("/compare/layers", response_model=ComparisonView)
def layers_table(
    request: Request, session: SessionDep, settings: SettingsDep, jobs: JobsQuery
) -> Response:
    """The same; its CSV is the layers of every job."""
    ids = chosen_ids(jobs)
    view = comparison_view(session, settings, ids)
    rows = (
        [row.layer, subject.id, *(getattr(report, name) for name in LAYER_COLUMNS[2:])]
        for row in view.layers
        for subject, report in zip(view.subjects, row.reports, strict=True)
        if report
    )
    table = Table(f"compare-layers-{'-'.join(ids)}", LAYER_COLUMNS, rows)
    return answer(request, view, "comparison/show.html", table=table)


@router.get("/compare/layers/chart")
def layers_chart(session: SessionDep, settings: SettingsDep, jobs: JobsQuery) -> dict[str, Any]:
    """The chart of the errors by layer: a plotly figure."""
    return errors_by_layer(comparison_view(session, settings, chosen_ids(jobs)))


@router.get("/compare/slices/chart")
def slices_chart(
    session: SessionDep,
    settings: SettingsDep,
    jobs: JobsQuery,
    pair: Annotated[int, Query(ge=0, le=5)] = 0,
) -> dict[str, Any]:
    """The chart of the slices' changes, of one job against the first: a plotly figure."""
    view = comparison_view(session, settings, chosen_ids(jobs))
    if pair >= len(view.pairs):
        raise ComparisonRefused(f"There is no pair {pair}: there are {len(view.pairs)}.")
    return differences_by_slice(view, pair)

"""The tables of a job's quality: what each shows, from where, and its chart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel
from sqlmodel import Session

from app.jobs import service
from app.jobs.spec import Evaluation, SliceDivergence
from app.negotiation import Table
from app.paging import page_of
from app.quality import charts, measures
from app.quality.artifacts import evaluation_of_job, layer_reports, module_reports
from app.quality.divergence import few_rows
from app.quality.sorted_tables import PAGE_ROWS, Column, SortedQuery, SortedTable, sorted_rows
from app.settings import Settings


class Name(StrEnum):
    """The tables by name."""

    LAYERS = "layers"
    ROUTER = "router"
    SLICES = "slices"
    SEARCH = "search"
    EXPERTS = "experts"


Rows = Sequence[BaseModel]


@dataclass(frozen=True)
class _Kind:
    title: str
    note: str
    chart_label: str
    columns: tuple[Column, ...]
    rows: Callable[[Session, Settings, str], Rows]
    chart: Callable[[Any], dict[str, Any]]
    caveat: Callable[[Any], str] = lambda _: ""


def sorted_table(
    session: Session, settings: Settings, job_id: str, name: Name, query: SortedQuery
) -> SortedTable:
    """A page of one of a job's tables. Raises NotFound, and Refused for an unknown column."""
    kind = KINDS[name]
    whole = kind.rows(session, settings, job_id)
    found = sorted_rows(whole, kind.columns, query)
    rows, page, pages = page_of(found, query.page, PAGE_ROWS)
    return SortedTable(
        name=name,
        title=kind.title,
        note=f"{kind.note} {kind.caveat(whole)}".strip(),
        address=f"/jobs/{job_id}/errors/tables/{name}",
        chart=f"/jobs/{job_id}/errors/charts/{name}" if found else None,
        chart_label=kind.chart_label,
        columns=list(kind.columns),
        rows=rows,
        query=query.model_copy(update={"page": page}),
        total=len(found),
        pages=pages,
    )


def whole_table(
    session: Session, settings: Settings, job_id: str, name: Name, query: SortedQuery
) -> Table:
    """All of a table, for its CSV."""
    kind = KINDS[name]
    header = [column.name for column in kind.columns]
    found = sorted_rows(kind.rows(session, settings, job_id), kind.columns, query)
    return Table(f"{name}-{job_id}", header, ([row[n] for n in header] for row in found))


def chart_of(session: Session, settings: Settings, job_id: str, name: Name) -> dict[str, Any]:
    """The chart of a table: a plotly figure."""
    kind = KINDS[name]
    return kind.chart(kind.rows(session, settings, job_id))


def _layers(session: Session, settings: Settings, job_id: str) -> Rows:
    evaluation = evaluation_of_job(settings, job_id)
    drift = {one.layer: one for one in evaluation.router_same} if evaluation else {}
    return [
        measures.LayerRow(
            **report.model_dump(),
            router_same=drift[report.layer].share if report.layer in drift else None,
            router_kl=drift[report.layer].kl if report.layer in drift else None,
        )
        for report in layer_reports(session, settings, job_id)
    ]


def _evaluated(settings: Settings, job_id: str, part: Callable[[Evaluation], Rows]) -> Rows:
    evaluation = evaluation_of_job(settings, job_id)
    return part(evaluation) if evaluation else []


def _router(_: Session, settings: Settings, job_id: str) -> Rows:
    return _evaluated(settings, job_id, lambda found: found.router_same)


def _slices(_: Session, settings: Settings, job_id: str) -> Rows:
    return _evaluated(
        settings, job_id, lambda found: sorted(found.slices, key=lambda one: -one.kl_mean)
    )


def _searches(session: Session, _: Settings, job_id: str) -> Rows:
    return measures.mapping_errors(service.list_events(session, job_id, type="mapping"))


def _of_slices(slices: Sequence[SliceDivergence]) -> str:
    shown = ""
    if len(slices) > charts.MOST_SLICES:
        shown = f"The chart has the {charts.MOST_SLICES} of {len(slices):,} where it is largest."
    return f"{shown} {few_rows(slices)}".strip()


def _experts(_: Session, settings: Settings, job_id: str) -> Rows:
    found = measures.errors_by_expert(module_reports(settings, job_id))
    return sorted(found, key=lambda one: -one.relative_mse)


_LAYER = Column(name="layer", label="Layer", kind="integer")
_ERROR = Column(name="relative_mse", label="Weights", unit="relative MSE")
_SQNR = Column(name="sqnr_db", label="Weights", unit="SQNR, dB", kind="fixed2")

KINDS: dict[Name, _Kind] = {
    Name.LAYERS: _Kind(
        "Error by layer",
        "Mean squared error over mean square, and the same as a signal to noise ratio (SQNR): "
        "20 dB are an error of 1 %, 10 dB more a tenth of it. Weights are held against what "
        "smoothing made of them, not against the source's. The output is that of the whole decoder "
        "layer, its input being exact, on a few batches of calibration rows and of held-out rows.",
        "Relative mean squared error as bars, and SQNR in decibels of weights, of the output on "
        "calibration rows and of the output on held-out rows as lines, by layer.",
        (
            _LAYER,
            _ERROR,
            _SQNR,
            Column(name="output_relative_mse", label="Output", unit="relative MSE"),
            Column(name="output_sqnr_db", label="Output", unit="SQNR, dB", kind="fixed2"),
            Column(name="held_out_relative_mse", label="Held-out output", unit="relative MSE"),
            Column(
                name="held_out_sqnr_db", label="Held-out output", unit="SQNR, dB", kind="fixed2"
            ),
            Column(name="router_same", label="Same experts", unit="of tokens", kind="percent"),
        ),
        _layers,
        charts.error_by_layer,
    ),
    Name.ROUTER: _Kind(
        "Router drift",
        "On held-out rows: the share of tokens whose top-k set of experts is the one the original "
        "chooses, and the KL divergence of the router's probabilities from the original's.",
        "Share of tokens with the same experts as a line, and KL of the router's probabilities as "
        "bars, by layer.",
        (
            _LAYER,
            Column(name="share", label="Same experts", unit="of tokens", kind="percent"),
            Column(name="kl", label="KL of probabilities", unit="nats a token"),
        ),
        _router,
        charts.router_drift,
    ),
    Name.SLICES: _Kind(
        "Divergence by slice",
        "KL divergence: how far the probabilities of the next token are from the original's, 0 "
        "where they are equal; on held-out rows, with 95 % bootstrap intervals.",
        "Mean KL of each slice with its 95 % interval.",
        (
            Column(name="facet", label="Facet", kind="text"),
            Column(name="value", label="Value", kind="value"),
            Column(name="rows", label="Rows", kind="integer"),
            Column(name="tokens", label="Tokens", kind="integer"),
            Column(name="kl_mean", label="KL", unit="nats a token", kind="kl"),
            Column(name="kl_low", label="95 % from", kind="kl"),
            Column(name="kl_high", label="to", kind="kl"),
            Column(name="router_same", label="Same experts", unit="of tokens", kind="percent"),
        ),
        _slices,
        charts.divergence_by_slice,
        _of_slices,
    ),
    Name.SEARCH: _Kind(
        "Scale search",
        "AWQ's loss of each mapping before and after the search: the mean squared difference of "
        "the parent's output, weights rounded as they are and rounded as best scaled.",
        "Loss before and after the scale search, added up by layer.",
        (
            _LAYER,
            Column(name="smooth_layer", label="Smoothed", kind="module"),
            Column(name="balance_layers", label="Readers", kind="integer"),
            Column(name="initial_error", label="Before", unit="MSE"),
            Column(name="best_error", label="After", unit="MSE"),
            Column(name="ratio", label="After over before", kind="percent"),
        ),
        _searches,
        charts.search_by_layer,
    ),
    Name.EXPERTS: _Kind(
        "Error by expert",
        "All quantized weights of an expert together, as smoothing left them: noise over signal.",
        "Heatmap of relative mean squared error, layer by expert.",
        (
            _LAYER,
            Column(name="expert", label="Expert", kind="integer"),
            Column(name="weights", label="Weights", kind="integer"),
            Column(name="relative_mse", label="Relative MSE"),
            Column(name="sqnr_db", label="SQNR", unit="dB", kind="fixed2"),
        ),
        _experts,
        charts.error_by_expert,
    ),
}

from __future__ import annotations

import csv
import gzip
import io
import json

import pytest

from app.jobs.spec import SliceDivergence
from app.quality.charts import divergence_by_slice, error_by_expert
from app.quality.measures import ExpertError
from app.quality.tables import KINDS, Name


@pytest.fixture
def address(filled) -> str:
    return f"/jobs/{filled.seeded.jobs['succeeded']}/errors"


def test_the_page_has_layers_slices_and_modules(filled, html: dict, address: str) -> None:
    page = filled.client.get(address, headers=html).text
    for word in ("0.003041", "Divergence by slice", "COBOL", "down_proj", "576 of 576 modules"):
        assert word in page


def test_csv_has_every_layer(filled, address: str) -> None:
    rows = list(csv.DictReader(io.StringIO(filled.client.get(f"{address}?format=csv").text)))
    view = filled.client.get(address).json()
    assert [float(row["relative_mse"]) for row in rows] == [
        layer["relative_mse"] for layer in view["layers"]
    ]


def test_the_chart_has_two_panels_with_units(filled, address: str) -> None:
    figure = filled.client.get(f"{address}/charts/layers").json()
    assert figure["layout"]["yaxis2"]["title"]["text"] == "SQNR (dB)"
    assert len(figure["data"][0]["y"]) == 6


def test_modules_are_sorted_filtered_and_paged_by_the_server(filled, address: str) -> None:
    query = "contains=down_proj&layer=3&sort=sqnr_db&descending=false"
    view = filled.client.get(f"{address}/modules?{query}").json()
    assert view["total"] == 32
    assert view["all"] == 576
    values = [module["sqnr_db"] for module in view["modules"]]
    assert values == sorted(values)
    text = filled.client.get(f"{address}/modules?{query}&format=csv").text
    assert len(list(csv.DictReader(io.StringIO(text)))) == 32


def test_the_modules_that_match_have_a_chart_by_kind_and_layer(filled, address: str) -> None:
    view = filled.client.get(f"{address}/modules?contains=_proj&layer=3").json()
    figure = filled.client.get(view["chart"]).json()
    trace, layout = figure["data"][0], figure["layout"]
    assert trace["x"] == ["3"]
    assert trace["y"] == [f"experts.*.{name}_proj" for name in ("down", "gate", "up")]
    assert "of 32 modules<br>worst: model.layers.3.mlp.experts." in trace["text"][0][0]
    assert (layout["xaxis"]["title"]["text"], layout["yaxis"]["title"]["text"]) == (
        "Layer",
        "Kind of module",
    )
    everything = filled.client.get(filled.client.get(f"{address}/modules").json()["chart"]).json()
    assert everything["data"][0]["z"]["shape"] == "3, 6"


def test_layer_zero_can_be_asked_for(filled, address: str) -> None:
    assert filled.client.get(f"{address}/modules?layer=0").json()["total"] == 96


def test_nothing_matches(filled, html: dict, address: str) -> None:
    assert "No module matches" in filled.client.get(f"{address}?contains=zzz", headers=html).text


@pytest.mark.parametrize("query", ["sort=colour", "layer=x", "page=0", "descending=perhaps"])
def test_a_query_that_means_nothing_is_refused(filled, address: str, query: str) -> None:
    assert filled.client.get(f"{address}?{query}").status_code == 422


def test_what_was_not_measured_says_so(filled, html: dict) -> None:
    queued = f"/jobs/{filled.seeded.jobs['queued']}/errors"
    page = filled.client.get(queued, headers=html)
    assert page.status_code == 200
    assert page.text.count("not measured") == 4
    assert page.text.count("Not measured yet") == 6
    assert filled.client.get(queued).json()["evaluation"] is None


def test_a_job_that_ended_without_figures_leads_back(filled, html: dict) -> None:
    job_id = filled.seeded.jobs["cancelled"]
    page = filled.client.get(f"/jobs/{job_id}/errors", headers=html).text
    assert "measured no errors" in page
    assert "Not measured yet" not in page
    assert f'href="/jobs/{job_id}/coverage"' not in page


def test_a_running_job_shows_the_layers_it_has_told_of(filled) -> None:
    view = filled.client.get(f"/jobs/{filled.seeded.jobs['running']}/errors").json()
    assert [layer["layer"] for layer in view["layers"]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("layers", 6, {"held_out_sqnr_db", "router_same"}),
        ("router", 6, {"share", "kl"}),
        ("slices", 13, {"kl_low", "kl_high", "tokens"}),
        ("search", 12, {"initial_error", "best_error", "ratio"}),
        ("experts", 192, {"expert", "weights", "relative_mse"}),
    ],
)
def test_every_table_has_its_csv_and_its_chart(
    filled, html: dict, address: str, name: str, rows: int, columns: set[str]
) -> None:
    text = filled.client.get(f"{address}/tables/{name}?format=csv").text
    found = list(csv.DictReader(io.StringIO(text)))
    assert len(found) == rows
    assert columns <= found[0].keys()
    figure = filled.client.get(f"{address}/charts/{name}").json()
    assert figure["layout"]["title"]["text"]
    assert figure["layout"]["xaxis"]["title"]["text"]
    assert filled.client.get(f"{address}/tables/{name}", headers=html).status_code == 200


def test_tables_are_sorted_and_paged_by_the_server(filled, address: str) -> None:
    view = filled.client.get(f"{address}/tables/experts?sort=sqnr_db&descending=false").json()
    values = [row["sqnr_db"] for row in view["rows"]]
    assert values == sorted(values)
    assert (view["pages"], len(values)) == (7, 30)
    last = filled.client.get(f"{address}/tables/experts?sort=sqnr_db&page=99").json()
    assert (last["query"]["page"], len(last["rows"])) == (7, 12)


def test_a_column_that_is_not_there_is_refused(filled, address: str) -> None:
    refused = filled.client.get(f"{address}/tables/layers?sort=colour")
    assert refused.status_code == 422
    assert "there is no column 'colour'" in refused.json()["error"]
    assert filled.client.get(f"{address}/tables/nothing").status_code == 422
    assert filled.client.get("/jobs/none/errors/tables/layers").status_code == 404


def test_heatmap_of_a_large_model_is_small() -> None:
    experts = [
        ExpertError(layer=layer, expert=expert, weights=3, relative_mse=0.005, sqnr_db=23.0)
        for layer in range(62)
        for expert in range(256)
    ]
    assert len(gzip.compress(json.dumps(error_by_expert(experts)).encode())) < 150_000


def test_of_thousands_of_slices_the_chart_has_the_largest() -> None:
    slices = [
        SliceDivergence(facet="domain", value=f"{at}", rows=20, tokens=90, kl_mean=at, kl_low=at,
                        kl_high=at)
        for at in range(4_000)
    ]  # fmt: skip
    figure = divergence_by_slice(slices)
    assert figure["layout"]["title"]["text"].endswith("by slice, the 100 largest")
    assert figure["data"][0]["x"] == list(range(3_900, 4_000))
    assert figure["layout"]["height"] < 5_000
    assert (
        KINDS[Name.SLICES].caveat(slices) == "The chart has the 100 of 4,000 where it is largest."
    )

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session

from app.base_models.service import add_model
from app.calibration.service import save_set
from app.jobs.models import Job
from app.settings import Settings
from tests.app.coverage.profiles import dense
from tests.seed import small_spec, write_model


@pytest.fixture
def address(filled) -> str:
    return f"/jobs/{filled.seeded.jobs['succeeded']}/coverage"


def test_the_page_has_figures_chart_and_table(filled, html: dict, address: str) -> None:
    page = filled.client.get(address, headers=html).text
    assert "of 192, over 6 layers" in page
    assert f'data-chart="{address}/chart?' in page
    assert 'aria-sort="ascending"' in page


def test_csv_has_every_expert_and_agrees_with_the_chart(filled, address: str) -> None:
    text = filled.client.get(f"{address}?format=csv&sort=layer").text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 192
    z = filled.client.get(f"{address}/chart").json()["data"][0]["z"]
    drawn = np.frombuffer(base64.b64decode(z["bdata"]), dtype="<f4").reshape(6, 32)
    told = np.array([int(row["tokens"]) for row in rows]).reshape(6, 32)
    assert np.array_equal(drawn, told)


def test_a_filter_narrows_tokens(filled, address: str) -> None:
    whole = filled.client.get(address).json()
    part = filled.client.get(f"{address}?programming_language=Rust").json()
    assert 0 < part["tokens"] < whole["tokens"]
    assert {"value": "Rust", "label": "Rust"} in whole["options"]["programming_language"]
    assert "programming_language=Rust" in part["chart"]


def test_the_floor_is_settable(filled, html: dict, address: str) -> None:
    view = filled.client.get(f"{address}?floor=100000&starved_only=true").json()
    assert view["starved"] == view["matching"] == 192
    none = filled.client.get(f"{address}?floor=0&starved_only=true", headers=html)
    assert "No expert is below 0 tokens" in none.text


def test_pages_and_sorting(filled, address: str) -> None:
    first = filled.client.get(f"{address}?sort=tokens&descending=true").json()
    tokens = [row["tokens"] for row in first["experts"]]
    assert tokens == sorted(tokens, reverse=True)
    assert first["pages"] == 6
    last = filled.client.get(f"{address}?sort=tokens&descending=true&page=999").json()
    assert last["page"] == 6
    assert last["experts"][-1]["tokens"] <= tokens[-1]


@pytest.mark.parametrize(
    "query", ["domain=nothing", "floor=-1", "floor=x", "sort=colour", "scale=cubic", "page=0"]
)
def test_a_query_that_means_nothing_is_refused(
    filled, html: dict, address: str, query: str
) -> None:
    assert filled.client.get(f"{address}?{query}").status_code == 422
    assert filled.client.get(f"{address}?{query}", headers=html).status_code == 422


def test_a_job_without_coverage_says_when_it_comes(filled, html: dict) -> None:
    page = filled.client.get(f"/jobs/{filled.seeded.jobs['queued']}/coverage", headers=html)
    assert page.status_code == 404
    assert "Measure coverage" in page.text


def test_the_chart_of_log_scale_sorted_by_load(filled, address: str) -> None:
    figure = filled.client.get(f"{address}/chart?scale=log&order=load&measure=share").json()
    assert figure["data"][0]["type"] == "heatmap"
    assert "by tokens" in figure["layout"]["xaxis"]["title"]["text"]


def test_a_dense_model_has_no_heatmap_but_a_sentence(
    client: TestClient, session: Session, settings: Settings, html: dict, tmp_path: Path
) -> None:
    model = add_model(session, write_model(tmp_path / "dense", experts=0))
    job = Job(
        id="dense",
        kind="profile",
        name="a set on a dense model",
        set_id=save_set(session, small_spec()).id,
        model_id=model.id,
        spec={},
    )
    session.add(job)
    session.commit()
    directory = settings.jobs_dir / job.id
    directory.mkdir(parents=True)
    with (directory / "coverage.npz").open("wb") as stream:
        dense().save(stream)
    page = client.get("/jobs/dense/coverage", headers=html)
    assert page.status_code == 200
    assert "has no experts to reach" in page.text
    assert "data-chart" not in page.text
    assert client.get("/jobs/dense/coverage").json()["experts_total"] == 0
    assert client.get("/jobs/dense/coverage/chart").status_code == 200

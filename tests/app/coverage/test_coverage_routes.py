from __future__ import annotations

import base64
import csv
import io
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session

from app.base_models.models import BaseModelRecord
from app.base_models.service import add_model
from app.calibration.building import build_set
from app.calibration.service import save_set
from app.calibration.spec import SetSpec
from app.database import session_for
from app.jobs.models import Job
from app.settings import Settings
from tests.app.conftest import HTML, client_of
from tests.app.coverage.profiles import dense
from tests.seed import Seeded, seed, small_spec
from tests.seeded_model import write_model


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
    drawn = np.frombuffer(base64.b64decode(z["bdata"]), dtype="<i4").reshape(6, 32)
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


def test_two_values_that_no_row_shares_are_both_named(filled, address: str) -> None:
    refused = filled.client.get(f"{address}?spoken_language=de&programming_language=Rust")
    assert refused.json()["error"] == (
        "No row of the set has German as its spoken language and Rust as its programming "
        "language: ask for less."
    )


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


def test_every_column_filters(filled, address: str) -> None:
    whole = filled.client.get(address).json()
    for column in ("source", "slice", "domain"):
        value = whole["options"][column][0]["value"]
        part = filled.client.get(address, params={column: value}).json()
        assert 0 < part["tokens"] < whole["tokens"]


def test_the_floor_can_be_a_part_of_the_layers_mean(filled, html: dict, address: str) -> None:
    view = filled.client.get(f"{address}?floor=0&floor_percent=100").json()
    assert 0 < view["starved"] < 192
    assert view["missing"] > 0
    page = filled.client.get(f"{address}?floor=0&floor_percent=100", headers=html).text
    assert "routed tokens are missing in all" in page


def test_an_expert_has_feeders_rows_and_companions(filled, html: dict, address: str) -> None:
    view = filled.client.get(f"{address}/experts/2/7").json()
    assert [table["column"] for table in view["tables"]] == [
        "spoken_language", "programming_language", "domain", "source", "slice",
    ]  # fmt: skip
    rows = view["rows"]
    assert rows[0]["tokens"] >= rows[-1]["tokens"] > 0
    assert len(rows[0]["text"]) > 20
    assert len(view["companions"]) == 8
    assert view["elsewhere"]["key"] == "held-out"
    own = {row["row_id"] for row in rows}
    assert not own & {row["row_id"] for row in view["elsewhere"]["rows"]}
    page = filled.client.get(f"{address}/experts/2/7", headers=html).text
    assert "Who else would feed it" in page
    assert filled.client.get(f"{address}/experts/2/7?format=csv").text.startswith("column,value")


def test_an_expert_that_is_not_there_is_not_found(filled, html: dict, address: str) -> None:
    page = filled.client.get(f"{address}/experts/2/32", headers=html)
    assert page.status_code == 404
    assert "experts 0 to 31 in layers 0 to 5" in page.text


def test_a_set_is_compared_with_its_held_out_rows(filled, html: dict, address: str) -> None:
    view = filled.client.get(f"{address}/compare").json()
    assert view["query"]["other"] == "held-out"
    assert [side["tokens"] > 0 for side in view["sides"]] == [True, True]
    assert view["rows"][0]["difference"] >= view["rows"][1]["difference"]
    figure = filled.client.get(view["chart"]).json()
    assert figure["data"][0]["zmin"] == -figure["data"][0]["zmax"]
    text = filled.client.get(f"{address}/compare?with=held-out&format=csv").text
    assert len(text.splitlines()) == 193
    assert filled.client.get(f"{address}/compare", headers=html).status_code == 200


def test_a_difference_of_nothing_has_no_sign(filled, html: dict, address: str) -> None:
    own = filled.seeded.jobs["succeeded"]
    page = filled.client.get(f"{address}/compare?with={own}", headers=html).text
    assert '<td class="n">0.00</td>' in page
    assert "+0.00" not in page


def test_a_comparison_with_nothing_is_not_found(filled, address: str) -> None:
    assert filled.client.get(f"{address}/compare?with=nothing").status_code == 404


def test_rows_are_chosen_once_a_budget_is_given(filled, html: dict, address: str) -> None:
    before = filled.client.get(f"{address}/rows").json()
    assert before["result"] is None
    view = filled.client.get(f"{address}/rows?budget=20000&floor=&aim=experts").json()
    result = view["result"]
    assert result["chosen"]["tokens"] <= 20_000
    assert result["chosen"]["worst5"] > result["random"]["worst5"]
    assert [row["turn"] for row in result["rows"][:3]] == [1, 2, 3]
    assert result["rows"][0]["text"]
    figure = filled.client.get(result["chart"]).json()
    assert figure["hover"]["names"] == ["random rows", "chosen rows"]
    csv_text = filled.client.get(f"{address}/rows?budget=20000&format=csv").text
    assert len(csv_text.splitlines()) == 1 + result["matching"]
    page = filled.client.get(f"{address}/rows?budget=20000", headers=html).text
    assert "Save these rows as a set" in page


@pytest.mark.parametrize("query", ["budget=0", "budget=x", "budget=9&aim=luck", "budget=10000000"])
def test_a_choice_that_cannot_be_is_refused_with_a_sentence(
    filled, html: dict, address: str, query: str
) -> None:
    page = filled.client.get(f"{address}/rows?{query}", headers=html)
    assert page.status_code == 422


@pytest.fixture
def own(settings: Settings) -> tuple[Settings, TestClient, Seeded]:
    """A filled installation that may be written to."""
    seeded = seed(settings)
    return settings, client_of(settings), seeded


def test_chosen_rows_become_a_set_that_builds_with_these_rows_alone(own) -> None:
    settings, client, seeded = own
    address = f"/jobs/{seeded.jobs['succeeded']}/coverage/rows"
    asked = {"budget": 20_000, "name": "Better rows"}
    saved = client.post(address, json=asked)
    assert saved.status_code == 201, saved.text
    document = saved.json()
    view = client.get(f"{address}?budget=20000").json()
    named = {row for part in document["spec"]["slices"] for row in part["row_ids"]}
    assert len(named) == view["result"]["matching"]
    with session_for(settings) as session:
        model = session.get_one(BaseModelRecord, seeded.model_id)
        built = build_set(
            SetSpec.model_validate(document["spec"]),
            tokenizer_dir=Path(model.path),
            sets_dir=settings.sets_dir,
            index_dir=settings.index_dir,
        )
    assert set(built.table(["row_id"])["row_id"].to_pylist()) == named
    assert built.tokens == view["result"]["chosen"]["tokens"]
    again = client.post(address, data={**asked, "floor": ""}, headers=HTML)
    assert again.headers["location"].startswith(f"/sets/{document['id']}")


def test_a_pool_is_a_profile_job_on_a_larger_set(own, monkeypatch: pytest.MonkeyPatch) -> None:
    _, client, seeded = own
    sent: list[str] = []
    monkeypatch.setattr("app.jobs.service.send", lambda _, job_id: sent.append(job_id))
    answer = client.post(f"/jobs/{seeded.jobs['succeeded']}/coverage/pool", json={"times": 3})
    assert answer.status_code == 201, answer.text
    job = answer.json()["job"]
    assert (job["kind"], sent) == ("profile", [job["id"]])
    spec = client.get(f"/sets/{job['set_id']}").json()["spec"]
    assert spec["token_budget"] > 2 * 60_000
    refused = client.post(f"/jobs/{seeded.jobs['succeeded']}/coverage/pool", json={"times": 1})
    assert refused.status_code == 422

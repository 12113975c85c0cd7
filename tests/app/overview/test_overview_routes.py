from __future__ import annotations

from fastapi.testclient import TestClient


def test_an_empty_installation_offers_the_first_step(client: TestClient, html: dict) -> None:
    page = client.get("/", headers=html)
    assert page.status_code == 200
    assert 'role="button" href="/models"' in page.text
    assert "Latest result" not in page.text


def test_the_overview_says_what_runs_and_how_good_it_is(filled, html: dict) -> None:
    page = filled.client.get("/", headers=html).text
    assert "running" in page
    assert "0.003041" in page
    assert "nats a token" in page
    assert f"/checkpoints/{filled.seeded.jobs['succeeded']}" in page


def test_the_json_twin_has_the_same_figures(filled) -> None:
    view = filled.client.get("/").json()
    assert {job["state"] for job in view["active"]} == {"running", "queued"}
    assert view["latest"]["experts_total"] == 6 * 32
    assert view["latest"]["evaluation"]["kl_mean"] == 0.003041
    assert view["model_id"] == filled.seeded.model_id


def test_csv_of_a_page_without_a_table_is_refused_with_a_sentence(client: TestClient) -> None:
    answer = client.get("/?format=csv")
    assert answer.status_code == 422
    assert "has no table" in answer.json()["error"]


def test_an_unknown_format_is_refused(client: TestClient) -> None:
    answer = client.get("/?format=xml")
    assert answer.status_code == 422
    assert "'xml'" in answer.json()["error"]


def test_only_get(client: TestClient) -> None:
    assert client.post("/").status_code == 405

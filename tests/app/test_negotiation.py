from __future__ import annotations

import pytest
from fastapi.testclient import TestClient


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("text/html", "text/html"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/html"),
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
    ],
)
def test_the_client_says_which_form_it_wants(
    client: TestClient, accept: str, content_type: str
) -> None:
    answer = client.get("/sets", headers={"accept": accept})
    assert answer.headers["content-type"].startswith(content_type)
    assert "accept" in answer.headers["vary"].lower()


def test_the_format_in_the_address_wins(client: TestClient, html: dict) -> None:
    assert client.get("/sets?format=json", headers=html).json()["sets"] == []


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_an_address_that_is_not_there(client: TestClient, accept: str) -> None:
    answer = client.get("/nothing/here", headers={"accept": accept})
    assert answer.status_code == 404
    assert "There is no page at /nothing/here" in answer.text
    assert answer.headers["content-type"].startswith(accept)


def test_htmx_gets_an_error_as_a_fragment(client: TestClient, html: dict) -> None:
    answer = client.get("/jobs/none", headers=html | {"hx-request": "true"})
    assert answer.status_code == 404
    assert answer.text.strip().startswith('<p class="problem"')


def test_broken_json_is_refused_with_a_sentence(client: TestClient) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post("/models", content=b'{"path": ', headers=headers)
    assert answer.status_code == 422
    assert "not JSON" in answer.json()["error"]


def test_a_cell_is_never_a_formula(client: TestClient) -> None:
    spec = {"name": "=cmd()", "slices": [{"name": "a", "weight": 1}], "token_budget": 10}
    assert client.post("/sets", json=spec).status_code == 201
    assert "'=cmd()" in client.get("/sets?format=csv").text


def test_every_page_is_in_openapi_with_its_model(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for page in ("/", "/sets", "/sets/new", "/models", "/jobs", "/checkpoints", "/sources"):
        content = paths[page]["get"]["responses"]["200"]["content"]
        assert "$ref" in content["application/json"]["schema"], page

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.seeded_model import write_model


def test_a_model_is_added_by_its_path(client: TestClient, html: dict, tmp_path: Path) -> None:
    directory = write_model(tmp_path / "tiny")
    added = client.post("/models", data={"path": str(directory)}, headers=html)
    assert added.status_code == 303
    page = client.get(added.headers["location"], headers=html).text
    assert "MiniMaxM2ForCausalLM" in page
    assert "top-4" in page
    assert "sigmoid" in page


def test_a_program_adds_a_model_with_json(client: TestClient, tmp_path: Path) -> None:
    directory = write_model(tmp_path / "tiny")
    added = client.post("/models", json={"path": str(directory)})
    assert added.status_code == 201
    assert added.json()["model"]["summary"]["experts"] == 32
    assert client.get(added.headers["location"]).json() == added.json()


def test_a_dense_model_says_it_has_no_experts(
    client: TestClient, html: dict, tmp_path: Path
) -> None:
    directory = write_model(tmp_path / "dense", experts=0)
    address = client.post("/models", data={"path": str(directory)}, headers=html).headers
    assert "A dense model" in client.get(address["location"], headers=html).text


@pytest.mark.parametrize("path", ["/nowhere/at/all", "", "   ", "a\x00b", "/etc/passwd"])
def test_a_path_that_cannot_be_used_stays_in_the_form(
    client: TestClient, html: dict, path: str
) -> None:
    refused = client.post("/models", data={"path": path}, headers=html)
    assert refused.status_code == 422
    assert 'id="path-problem"' in refused.text
    assert client.get("/models").json()["models"] == []


def test_a_program_gets_the_sentence(client: TestClient) -> None:
    refused = client.post("/models", json={"path": "/nowhere/at/all"})
    assert refused.status_code == 422
    assert "/nowhere/at/all" in refused.json()["error"]


@pytest.mark.parametrize("document", [{}, [], "x", {"path": 7}, {"path": "/x", "more": 1}])
def test_a_document_of_another_shape_is_refused(client: TestClient, document: object) -> None:
    assert client.post("/models", json=document).status_code == 422


def test_an_unknown_model_is_not_found(client: TestClient, html: dict) -> None:
    page = client.get("/models/none", headers=html)
    assert page.status_code == 404
    assert "There is no model" in page.text


def test_a_set_composed_for_a_model_is_counted_by_it(
    client: TestClient, html: dict, tmp_path: Path
) -> None:
    older, _newer = (
        client.post("/models", json={"path": str(write_model(tmp_path / name))}).json()["model"]
        for name in ("older", "newer")
    )
    address = f"/sets/new?model={older['id']}"
    assert address in client.get(f"/models/{older['id']}", headers=html).text
    composer = client.get(address).json()
    assert composer["fields"]["model_id"] == older["id"]
    assert composer["totals"]["counted_by"] == "older"
    assert client.get("/sets/new?model=none").status_code == 404

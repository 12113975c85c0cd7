from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.recipes.files import dump_recipe
from app.recipes.schema import PRESETS
from tests.seed import small_spec
from tests.seeded_model import write_model

OLD = Path(__file__).with_name("old_experts.yaml").read_text(encoding="utf-8")
TEXT = dump_recipe(PRESETS["experts-w4a16-g32"].model_copy(update={"grid": 8}))


def test_presets_have_their_pages(filled, html: dict) -> None:
    listed = filled.client.get("/recipes").json()["recipes"]
    assert [each["name"] for each in listed] == list(PRESETS)
    page = filled.client.get("/recipes/experts-w4a16-g32", headers=html).text
    assert "4-bit integers, one scale for 32 weights" in page
    assert f"/jobs/{filled.seeded.jobs['succeeded']}" in page
    assert filled.client.get("/recipes/nothing", headers=html).status_code == 404


def test_a_recipe_is_kept_under_its_name_and_never_changed(client: TestClient, html: dict) -> None:
    kept = client.post("/recipes", data={"name": "mine", "text": TEXT}, headers=html)
    assert kept.headers["location"] == "/recipes/mine"
    view = client.get("/recipes/mine").json()
    assert (view["recipe"]["grid"], view["recipe"]["name"]) == (8, "mine")
    again = client.post("/recipes", data={"name": "mine", "text": TEXT}, headers=html)
    assert again.status_code == 422
    assert "already: choose another name" in again.text
    assert client.post("/recipes", json={"name": "mine", "text": TEXT}).status_code == 409
    assert client.get("/recipes").json()["recipes"][0]["name"] == "mine"


def test_a_kept_recipe_is_one_click_from_a_job(
    client: TestClient, html: dict, tmp_path: Path
) -> None:
    client.post("/recipes", json={"name": "mine", "text": TEXT})
    assert 'href="/sets/new"' in client.get("/recipes/mine", headers=html).text
    saved = client.post("/sets", json=small_spec().model_dump(mode="json")).json()["id"]
    assert 'href="/models"' in client.get("/recipes/mine", headers=html).text.partition("<main")[2]
    model = client.post("/models", json={"path": str(write_model(tmp_path / "tiny"))}).json()
    page = client.get("/recipes/mine", headers=html).text
    assert f'<option value="{saved}">' in page
    form = {"set_id": saved, "model_id": model["model"]["id"], "recipe": "mine"}
    assert all(f'name="{name}"' in page for name in form)
    assert client.post("/jobs", data=form, headers=html).status_code == 503  # No broker runs here.
    assert client.get("/jobs").json()["jobs"][0]["recipe"] == "mine"


def test_its_file_is_what_the_command_line_reads(client: TestClient) -> None:
    client.post("/recipes", json={"name": "mine", "text": TEXT})
    file = client.get("/recipes/mine/recipe.yaml")
    assert file.headers["content-disposition"] == 'attachment; filename="mine.yaml"'
    assert "grid: 8" in file.text


def test_an_old_recipe_is_imported_with_its_notes(client: TestClient, html: dict) -> None:
    kept = client.post("/recipes", data={"name": "old", "text": OLD}, headers=html)
    assert kept.status_code == 303
    page = client.get("/recipes/old", headers=html).text
    assert "Changed on import" in page
    assert "router first" in page


@pytest.mark.parametrize("name", ["Has Spaces", "../up", "experts-w4a16-g32", "x" * 81])
def test_a_name_that_cannot_be_used_keeps_what_was_typed(
    client: TestClient, html: dict, name: str
) -> None:
    refused = client.post("/recipes", data={"name": name, "text": TEXT}, headers=html)
    assert refused.status_code == 422
    assert "grid: 8" in refused.text
    assert 'role="alert"' in refused.text


def test_a_name_that_cannot_be_used_is_told_while_typing_with_one_that_can(
    client: TestClient, html: dict
) -> None:
    given = {"text": OLD, "name": "Minimax-M2.1-Experts-only-AWQ"}
    (told,) = client.post("/recipes/lint", json=given).json()["lint"]["errors"]
    assert told.endswith("80 at most; 'minimax-m2-1-experts-only-awq' would do.")
    refused = client.post("/recipes", data=given, headers=html)
    assert "minimax-m2-1-experts-only-awq" in refused.text
    kept = client.post("/recipes", json=given | {"name": "minimax-m2-1-experts-only-awq"})
    assert kept.status_code == 201


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("Has Spaces", TEXT, "has-spaces"),
        ("x" * 81, TEXT, "80 at most"),
        ("mine", "groups: 7", "groups"),
        ("mine", "groups: [", "line 2, column 1"),
        ("experts-w4a16-g32", TEXT, "already"),
    ],
)
def test_what_keeps_a_recipe_from_being_kept_is_told_once(
    client: TestClient, html: dict, name: str, text: str, told: str
) -> None:
    page = client.post("/recipes", data={"name": name, "text": text}, headers=html).text
    problems = re.findall(r'<p class="problem"[^>]*>(.*?)</p>', page, re.DOTALL)
    assert sum(told in problem for problem in problems) == 1, problems
    assert page.count('role="alert"') == 1


def test_the_name_of_the_form_is_that_of_a_text_without_one(client: TestClient) -> None:
    text = "groups:\n- name: experts\n  targets: ['.*experts.*']\n"
    assert (
        client.post("/recipes/lint", json={"text": text, "name": "mine"}).json()["lint"]["errors"]
        == []
    )
    kept = client.post("/recipes", json={"text": text, "name": "mine"})
    assert kept.json()["recipe"]["name"] == "mine"


def test_lint_holds_it_against_a_model(client: TestClient, html: dict, tmp_path: Path) -> None:
    model = client.post("/models", json={"path": str(write_model(tmp_path / "tiny"))}).json()
    given = {"text": TEXT, "name": "r", "model_id": model["model"]["id"]}
    told = client.post("/recipes/lint", json=given).json()["lint"]
    assert told["errors"] == []
    assert told["quantized"] == told["patterns"][0]["matches"] > 0
    assert 0 < told["bytes_after"] < told["bytes_before"]
    headers = {**html, "hx-request": "true"}
    fragment = client.post("/recipes/lint", data={**given, "text": "groups: 7"}, headers=headers)
    assert fragment.status_code == 200
    assert "to mend" in fragment.text
    assert "<html" not in fragment.text


def test_the_editor_opens_beside_a_model_that_is_damaged(
    client: TestClient, html: dict, tmp_path: Path
) -> None:
    directory = write_model(tmp_path / "tiny")
    client.post("/models", json={"path": str(directory)})
    weights = next(directory.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    page = client.get("/recipes/new", headers=html)
    assert page.status_code == 200
    assert weights.name in page.text
    assert "to mend" in page.text


def test_a_job_takes_a_saved_recipe(filled, html: dict) -> None:
    page = filled.client.get(f"/sets/{filled.seeded.set_id}", headers=html).text
    assert 'value="linears-w4a16-g128-asym"' in page
    refused = filled.client.post(
        "/jobs",
        json={
            "set_id": filled.seeded.set_id,
            "model_id": filled.seeded.model_id,
            "recipe": "nobody-kept-it",
        },
    )
    assert refused.status_code == 404
    assert "no recipe 'nobody-kept-it'" in refused.json()["error"]

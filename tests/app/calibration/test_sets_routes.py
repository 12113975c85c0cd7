from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session

from app.calibration.building import build_set
from app.calibration.composer import starter
from app.calibration.forms import fields_of_form, fields_of_spec, read_spec
from app.calibration.models import CalibrationSet
from app.calibration.spec import SetSpec
from app.settings import Settings
from tests.seed import small_spec
from tests.seeded_model import write_model

KINDS = ("truncation", "min_tokens", "duplicates", "packing", "reasoning", "kept")
OF_SLICE = (
    "name", "kind", "weight", "amount", "balance", "sources", "prompt", "prompt_facet",
    "prompt_values", "kept",
)  # fmt: skip


def form_of(spec, model_id: str = "") -> dict[str, str | list[str]]:
    """A composition as a browser sends it."""
    fields = fields_of_spec(spec, model_id)
    form: dict[str, str | list[str]] = {
        name: getattr(fields, name)
        for name in ("name", "token_budget", "max_length", "seed", "sources", "model_id", *KINDS)
    }
    for number, part in enumerate(fields.slices):
        form |= {f"slice-{number}-{name}": getattr(part, name) for name in OF_SLICE}
        for facet, values in part.facets.items():
            form[f"slice-{number}-{facet.value}"] = values
    return form


@pytest.fixture
def model_id(client: TestClient, tmp_path: Path) -> str:
    directory = write_model(tmp_path / "tiny")
    return client.post("/models", json={"path": str(directory)}).json()["model"]["id"]


@pytest.mark.usefixtures("model_id")
def test_the_composer_begins_with_the_starter_set(client: TestClient, html: dict) -> None:
    page = client.get("/sets/new", headers=html).text
    assert 'value="Software engineer (starter)"' in page
    assert "of 60,000 tokens" in page
    assert re.search(r"Rust</span>\s*<small>\d+ rows, [\d,]+ tokens", page)


def test_without_a_model_the_composer_says_what_is_missing(client: TestClient, html: dict) -> None:
    page = client.get("/sets/new", headers=html).text
    assert "choose a model, its tokenizer counts the tokens" in page


@pytest.mark.usefixtures("model_id")
def test_the_composer_begins_with_one_source(client: TestClient, html: dict) -> None:
    assert 'href="/sets/new?source=permissive"' in client.get(
        "/sources/permissive", headers=html
    ).text.replace("&amp;", "&")
    fields = client.get("/sets/new", params={"source": "permissive"}).json()["fields"]
    assert fields["sources"] == ["permissive"]
    (part,) = fields["slices"]
    assert (part["kind"], part["sources"]) == ("rows", [])
    view = client.get("/sets/new", params={"source": "permissive"}).json()["totals"]["totals"]
    assert (view["refusals"], view["rows"]) == ([], int(part["amount"]))
    gone = client.get("/sets/new", params={"source": "permissiv"}, headers=html)
    assert gone.status_code == 404
    assert "the nearest is &#39;permissive&#39;" in gone.text


def test_a_form_and_its_composition_are_the_same(settings: Settings) -> None:
    spec = starter(settings)
    assert read_spec(fields_of_spec(spec, "")) == (spec, {})


EVERYTHING = SetSpec.model_validate(
    {
        "name": "everything",
        "token_budget": 9000,
        "max_length": 300,
        "truncation": "middle",
        "min_tokens": 20,
        "duplicates": "drop",
        "packing": True,
        "reasoning": "inline",
        "sources": ["permissive", "copyleft"],
        "notes": ["from a file"],
        "extra": {"shuffle": True},
        "slices": [
            {"name": "a", "weight": 0.1 + 0.2, "sources": ["copyleft"], "extra": {"line": 3}},
            {
                "name": "b",
                "rows": 7,
                "balance": "domain",
                "prompt": {
                    "template": "Answer in {{ value }}.\n***\n",
                    "facet": "spoken_language",
                    "values": ["ar", "he"],
                },
            },
            {"name": "c", "tokens": 900, "facets": {"programming_language": ["Rust", "C"]}},
            {"name": "d", "rows": "all", "row_ids": ["0001", "0002"]},
        ],
    }
)


def test_a_form_carries_all_that_a_composition_can_say(client: TestClient, html: dict) -> None:
    assert read_spec(fields_of_spec(EVERYTHING, "")) == (EVERYTHING, {})
    form = form_of(EVERYTHING)
    form["slice-1-prompt"] = form["slice-1-prompt"].replace("\n", "\r\n")  # as browsers send it
    location = client.post("/sets", data=form, headers=html).headers["location"]
    assert SetSpec.model_validate(client.get(location).json()["spec"]) == EVERYTHING


def test_rows_are_shown_as_the_model_sees_them(
    client: TestClient, html: dict, model_id: str
) -> None:
    spec = small_spec().model_copy(update={"max_length": 64, "truncation": "head"})
    saved = client.post("/sets", json=spec.model_dump(mode="json")).json()
    page = client.get(f"/sets/{saved['id']}/rows", headers=html).text
    assert re.search(r"page 1 of \d+", page)
    assert "tokens cut</bdi>" in page
    assert '<span class="turn turn-assistant">' in page
    first = client.get(f"/sets/{saved['id']}/rows", params={"model": model_id}).json()["rows"]
    second = client.get(f"/sets/{saved['id']}/rows", params={"page": 2}).json()["rows"]
    assert first["total"] == second["total"] > 20
    assert not {row["row_id"] for row in first["rows"]} & {row["row_id"] for row in second["rows"]}
    assert client.get("/sets/none/rows", headers=html).status_code == 404


def test_a_set_names_what_was_built_from_it(
    client: TestClient, html: dict, settings: Settings, tmp_path: Path, model_id: str
) -> None:
    saved = client.post("/sets", json=small_spec().model_dump(mode="json")).json()
    assert saved["versions"] == []
    built = build_set(small_spec(), tokenizer_dir=tmp_path / "tiny", sets_dir=settings.sets_dir)
    [version] = client.get(f"/sets/{saved['id']}", params={"model": model_id}).json()["versions"]
    assert (version["id"], version["rows"]) == (built.id, built.rows)
    assert built.id in client.get(f"/sets/{saved['id']}", headers=html).text


def test_a_form_becomes_a_set_with_a_page(client: TestClient, html: dict, model_id: str) -> None:
    saved = client.post("/sets", data=form_of(small_spec(), model_id), headers=html)
    assert saved.status_code == 303
    page = client.get(saved.headers["location"], headers=html).text
    assert "Systems languages and German" in page
    assert "can be built" in page
    assert "</strong>, weight 3, shared equally over programming languages" in page
    assert "Sample rows" in page
    assert 'action="/jobs"' in page


@pytest.mark.usefixtures("model_id")
def test_a_program_saves_a_set_with_json_and_reads_its_facets_as_csv(
    client: TestClient,
) -> None:
    saved = client.post("/sets", json=small_spec().model_dump(mode="json"))
    assert saved.status_code == 201
    view = client.get(saved.headers["location"]).json()
    assert view["totals"]["totals"]["tokens"] <= 20_000
    text = client.get(saved.headers["location"], params={"format": "csv"}).text
    rows = {row["value"]: row for row in csv.DictReader(io.StringIO(text))}
    assert int(rows["Zig"]["tokens"]) > 0
    assert int(rows["Python"]["tokens"]) == 0


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("name", "", "Give it a name"),
        ("token_budget", "many", "Give a whole number of tokens"),
        ("token_budget", "0", "Give a whole number of tokens"),
        ("token_budget", "900000000", "is more than the"),
        ("max_length", "3", "from 16 to"),
        ("seed", "-1", "0 or more"),
        ("sources", [], "at least one source"),
        ("slice-0-weight", "-2", "weight above 0"),
        ("slice-0-weight", "nan", "weight above 0"),
        ("slice-1-name", "Systems languages", "give each its own name"),
        ("slice-0-balance", "colour", "Choose a facet"),
        ("slice-1-kind", "tokens", "Give a whole number of tokens"),
        ("slice-1-kind", "rows", "Give a whole number of rows"),
        ("min_tokens", "-1", "0 or more"),
        ("truncation", "sideways", "Choose from the list"),
        ("slice-0-sources", ["elsewhere"], "is not ticked among the set"),
        ("slice-0-prompt_values", ["ar"], "which facet they are of"),
        ("slice-0-programming_language", ["Pony"], "matches no row"),
    ],
)
def test_bad_input_comes_back_with_everything_kept(
    client: TestClient,
    html: dict,
    model_id: str,
    field: str,
    value: str | list[str],
    sentence: str,
) -> None:
    form = form_of(small_spec(), model_id) | {field: value}
    if field == "slice-0-prompt_values":
        form["slice-0-prompt"] = "In {{ value }}."
    refused = client.post("/sets", data=form, headers=html)
    assert refused.status_code == 422
    assert sentence in refused.text
    assert "aria-invalid" in refused.text
    assert re.search(r'name="slice-1-spoken_language"\s+value="de"[^>]*checked', refused.text)
    assert client.get("/sets").json()["sets"] == []


def test_typed_html_stays_text(client: TestClient, html: dict, model_id: str) -> None:
    form = form_of(small_spec(), model_id) | {"name": '"><script>alert(1)</script>'}
    location = client.post("/sets", data=form, headers=html).headers["location"]
    assert "<script>alert" not in client.get(location, headers=html).text
    assert "<script>alert" not in client.get("/sets", headers=html).text


def test_thousands_separators_are_read(client: TestClient, html: dict, model_id: str) -> None:
    form = form_of(small_spec(), model_id) | {"token_budget": "20,000"}
    assert client.post("/sets", data=form, headers=html).status_code == 303


def test_totals_answer_while_somebody_types(client: TestClient, html: dict, model_id: str) -> None:
    headers = html | {"hx-request": "true"}
    form = form_of(small_spec(), model_id)
    fragment = client.post("/sets/totals", data=form, headers=headers)
    assert fragment.status_code == 200
    assert "<html" not in fragment.text
    assert "of 20,000 tokens" in fragment.text
    half = client.post("/sets/totals", data=form | {"token_budget": ""}, headers=headers)
    assert half.status_code == 200
    assert "Not counted yet" in half.text


def test_totals_for_a_program(client: TestClient, model_id: str) -> None:
    document = small_spec().model_dump(mode="json") | {"model_id": model_id}
    totals = client.post("/sets/totals", json=document).json()["totals"]
    assert [part["name"] for part in totals["slices"]] == ["Systems languages", "German"]


def test_totals_lead_to_the_sources_that_have_no_rows(
    client: TestClient, html: dict, model_id: str
) -> None:
    document = small_spec().model_dump(mode="json")
    document |= {"model_id": model_id, "sources": ["permissive", "ultrachat-200k"]}
    assert client.post("/sets/totals", json=document).json()["missing"] == ["ultrachat-200k"]
    page = client.post("/sets/totals", json=document, headers=html).text
    assert '<a href="/sources?q=ultrachat-200k">ultrachat-200k</a>' in page


def test_a_slice_is_added_and_taken_out_without_scripts(
    client: TestClient, html: dict, model_id: str
) -> None:
    form = form_of(small_spec(), model_id)
    more = client.post("/sets/new", data=form | {"change": "add"}, headers=html).text
    assert 'name="slice-2-name"' in more
    less = client.post("/sets/new", data=form | {"change": "remove-0"}, headers=html).text
    assert 'value="Systems languages"' not in less
    assert 'value="German"' in less
    assert client.get("/sets").json()["sets"] == []


def test_the_list_of_sets_is_paged_by_the_server(client: TestClient, html: dict) -> None:
    document = small_spec().model_dump(mode="json")
    for number in range(26):
        client.post("/sets", json=document | {"name": f"set {number}"})
    first, last = (client.get("/sets", params={"page": page}).json() for page in (1, 9))
    assert (first["total"], first["pages"], len(first["sets"])) == (26, 2, 25)
    assert [(one["page"], one["sets"][-1]["name"]) for one in (first, last)] == [
        (1, "set 1"),
        (2, "set 0"),
    ]
    assert "page 1 of 2" in client.get("/sets", headers=html).text
    rows = list(csv.reader(io.StringIO(client.get("/sets?format=csv").text)))
    assert len(rows) == 27


def test_a_set_that_cannot_be_read_any_more_hides_no_other(
    client: TestClient, html: dict, session: Session
) -> None:
    broken = small_spec().model_dump(mode="json")
    broken["slices"][0]["prompt"] = {"template": "{% for", "facet": None, "values": []}
    session.add(CalibrationSet(id="old", name="old", spec=broken))
    session.commit()
    assert "/sets/old" in client.get("/sets", headers=html).text
    page = client.get("/sets/old", headers=html)
    assert page.status_code == 422
    assert "slices.0.prompt.template: The prompt template is not valid, line 1" in page.text


def test_an_unknown_set_or_model(client: TestClient, html: dict) -> None:
    assert client.get("/sets/none", headers=html).status_code == 404
    assert client.get("/sets/new?like=none", headers=html).status_code == 404
    saved = client.post("/sets", json=small_spec().model_dump(mode="json"))
    page = client.get(saved.headers["location"], params={"model": "none"}, headers=html)
    assert page.status_code == 200
    assert "There is no model" in page.text


def test_numbers_of_slices_may_have_gaps() -> None:
    from starlette.datastructures import FormData

    form = FormData([("slice-7-name", "b"), ("slice-2-name", "a"), ("slice-x-name", "c")])
    assert [part.name for part in fields_of_form(form).slices] == ["a", "b"]

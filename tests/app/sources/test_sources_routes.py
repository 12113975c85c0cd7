"""The pages about sources, for a browser and for programs."""

from __future__ import annotations

import csv
import gzip
import io
import json

import pytest
from fastapi.testclient import TestClient

from app.settings import Settings
from app.sources.starter_corpus import PACKS
from tests.app.conftest import client_of

ROWS = [{"prompt": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(1, 25)]
CONTENT = "\n".join(json.dumps(row) for row in ROWS).encode()


def send(client: TestClient, content: bytes = CONTENT, name: str = "sums.jsonl", **more: object):
    headers = more.pop("headers", {})
    return client.post("/sources", files={"file": (name, content)}, data=more, headers=headers)


@pytest.fixture
def small(settings: Settings) -> TestClient:
    """An installation that takes 10,000 bytes, 50,000 unpacked."""
    limits = {"upload_bytes": 10_000, "unpacked_bytes": 50_000}
    return client_of(settings.model_copy(update=limits))


def test_the_catalogue_is_paged_by_the_server(client: TestClient, html: dict) -> None:
    first = client.get("/sources", headers=html).text
    assert "53 of 53 sources" in first
    assert "page 1 of 3" in first
    assert "permissive" in first
    names = [
        source["name"]
        for page in (1, 2, 3)
        for source in client.get(f"/sources?page={page}").json()["sources"]
    ]
    assert len(set(names)) == 53


def test_the_csv_has_every_page_of_what_was_asked(client: TestClient) -> None:
    text = client.get("/sources?format=csv").text
    assert len(list(csv.DictReader(io.StringIO(text)))) == 53
    text = client.get("/sources?format=csv&kind=starter").text
    assert [row["name"] for row in csv.DictReader(io.StringIO(text))] == list(PACKS)


def test_sources_are_found_by_facet(client: TestClient, html: dict) -> None:
    found = client.get("/sources?programming_language=Lean&kind=hub").json()
    assert [source["name"] for source in found["sources"]] == ["nemotron-math-proofs-v1"]
    form = "/sources?q=&kind=&state=&spoken_language=&programming_language=Lean&domain="
    assert client.get(form).json()["matching"] == 2
    none = client.get("/sources?q=nothing+like+this", headers=html).text
    assert "No source is like that" in none
    assert client.get("/sources?kind=cloud").status_code == 422


def test_an_upload_shows_its_rows(client: TestClient, html: dict) -> None:
    sent = send(client, gzip.compress(CONTENT), "sums.jsonl.gz", domain="math", headers=html)
    assert (sent.status_code, sent.headers["location"]) == (303, "/sources/sums")
    page = client.get("/sources/sums", headers=html).text
    for words in ("What is 1 + 1?", "Math", "24 rows", "prompt_answer", "page 1 of 5"):
        assert words in page
    assert "What is 6 + 6?" in client.get("/sources/sums?page=2", headers=html).text


def test_a_program_gets_the_document_of_what_it_uploaded(client: TestClient) -> None:
    sent = send(client, name="my sums.jsonl", columns="prompt, answer", formatter="prompt_answer")
    assert (sent.status_code, sent.headers["location"]) == (201, "/sources/my-sums")
    source = sent.json()["source"]
    assert (source["rows"], source["state"], source["kind"]) == (24, "ready", "upload")
    assert sent.json()["preview"][0]["messages"][0]["content"] == "What is 1 + 1?"


def test_a_program_adds_a_data_set_of_the_hub(client: TestClient) -> None:
    document = {"hub_id": "me/Sums", "formatter": "raw_text", "columns": ["text"], "domain": "math"}
    sent = client.post("/sources", json=document)
    assert sent.status_code == 201
    source = sent.json()["source"]
    assert (source["name"], source["state"], source["place"]) == ("sums", "not fetched", "me/Sums")
    assert client.post("/sources", json=document).status_code == 409


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, "Give one of three: a file"),
        ({"hub_id": "a/b", "folder": "/x"}, "Give one of three: a file"),
        ({"folder": "x"}, "Give the whole path of the folder"),
        ({"folder": "/nothing/here"}, "There is no file or folder /nothing/here"),
        (
            {"hub_id": "a/b", "collumns": "x"},
            "collumns: there is no such field; the nearest is 'columns'.",
        ),
        ({"hub_id": "a/b", "rows_limit": "many"}, "rows_limit"),
        ({"hub_id": 3}, "hub_id: 3 is a whole number: give a text."),
    ],
)
def test_what_cannot_be_is_refused(client: TestClient, document: dict, said: str) -> None:
    sent = client.post("/sources", json=document)
    assert sent.status_code == 422
    assert said in sent.json()["error"]


def test_a_bad_file_comes_back_with_its_place_and_nothing_is_kept(
    client: TestClient, html: dict, settings: Settings
) -> None:
    bad = b"text\ncaf\xe9\n"
    sent = send(client, bad, "notes.csv", domain="law", headers=html)
    assert sent.status_code == 422
    assert "notes.csv, line 2: byte 4 (0xE9) is not UTF-8" in sent.text
    assert 'value="law"' in sent.text
    assert client.get("/sources/notes").status_code == 404
    assert list(settings.sources_dir.glob("*")) == []
    assert (
        send(client, b"x", "../up.csv").json()["error"].startswith("'../up.csv' cannot be a file")
    )
    assert client.post("/sources", content=b"{", headers={"content-type": "application/json"}
                       ).status_code == 422  # fmt: skip


def test_a_file_past_the_limit_is_refused(small: TestClient) -> None:
    large = send(small, b"x" * 20_000, "a.txt")
    assert (large.status_code, "larger than 10,000 bytes" in large.text) == (413, True)
    huge = send(small, b"x" * 5_000_000, "a.txt")
    assert huge.status_code == 413
    bomb = send(small, gzip.compress(b"word word\n" * 100_000), "a.txt.gz")
    assert (bomb.status_code, "unpacks to more than 50,000" in bomb.text) == (422, True)


def test_tags_change_the_rows_and_the_filter(client: TestClient, html: dict) -> None:
    send(client)
    changed = client.post("/sources/sums", data={"domain": "math"}, headers=html)
    assert (changed.status_code, changed.headers["location"]) == (303, "/sources/sums")
    found = client.get("/sources?domain=math&kind=upload").json()["sources"]
    assert [source["facets"]["domain"] for source in found] == [{"math": 24}]
    client.post("/sources/sums", json={"domain": ""})
    assert client.get("/sources?domain=math&kind=upload").json()["sources"] == []


def test_a_limit_of_rows_that_do_not_fit_fails_the_next_reading(client: TestClient) -> None:
    rows = [*ROWS, {"prompt": "", "answer": "x"}]
    send(client, "\n".join(json.dumps(row) for row in rows).encode())
    changed = client.post("/sources/sums", json={"set_aside_limit": 0, "domain": "math"}).json()
    assert changed["entry"]["set_aside_limit"] == 0
    assert changed["source"]["rows"] == 24
    refused = client.post("/sources/sums", json={"columns": ["answer", "prompt"]})
    assert "More than 0 rows do not fit, which is the limit that was set" in refused.text
    client.post("/sources/sums", data={"set_aside_limit": "none"})
    assert client.get("/sources/sums").json()["entry"]["set_aside_limit"] is None


def test_a_name_that_is_an_address_is_refused(client: TestClient) -> None:
    for name in ("new", "fetch"):
        assert send(client, name=f"{name}.jsonl").status_code == 422


def test_a_change_that_cannot_be_says_why(client: TestClient, html: dict) -> None:
    send(client)
    wrong = client.post("/sources/sums", data={"columns": "promt, answer"}, headers=html)
    assert wrong.status_code == 422
    assert "no column &#39;promt&#39;; the nearest is &#39;prompt&#39;" in wrong.text
    assert client.post("/sources/sums", json={"origin": {}}).status_code == 422
    assert client.post("/sources/permissive", json={"domain": "law"}).status_code == 422


def test_disabling_and_deleting(client: TestClient, html: dict) -> None:
    send(client)
    client.post("/sources/sums", data={"enabled": "false"}, headers=html)
    assert "not in use" in client.get("/sources/sums", headers=html).text
    assert client.post("/sources/sums/delete").status_code == 204
    assert client.get("/sources/sums").status_code == 404
    kept = client.post("/sources/ultrachat-200k/delete", headers=html)
    assert (kept.status_code, "comes with Calibrant" in kept.text) == (409, True)


def test_rows_set_aside_are_listed_with_their_reasons(client: TestClient, html: dict) -> None:
    rows = [*ROWS, {"prompt": "", "answer": "x"}, {"prompt": "x", "answer": ""}]
    send(client, "\n".join(json.dumps(row) for row in rows).encode())
    page = client.get("/sources/sums", headers=html).text
    assert "2 set aside" in page
    assert "the prompt is empty" in page
    view = client.get("/sources/sums").json()
    assert [row["row"] for row in view["set_aside"]] == [25, 26]


def test_a_starter_pack_shows_its_rows_licences_and_notice(client: TestClient, html: dict) -> None:
    page = client.get("/sources/permissive", headers=html).text
    for words in ("NOTICE", "MIT", "rows of each", "Write "):
        assert words in page
    notice = client.get("/sources/permissive/NOTICE")
    assert notice.headers["content-type"].startswith("text/plain")
    assert "licence of these passages" in notice.text
    for name in ("nothing", "ultrachat-200k"):
        assert client.get(f"/sources/{name}/NOTICE").status_code == 404
    assert client.post("/sources/permissive/fetch").status_code == 409


def test_columns_of_labels_are_found_beside_a_formatter_that_is_given_and_can_be_changed(
    client: TestClient, html: dict[str, str]
) -> None:
    rows = [{"content": f"fn f{i}() {{}}", "lang": "Rust", "topic": "devops"} for i in range(20)]
    content = "\n".join(json.dumps(row) for row in rows).encode()
    given = {"name": "mine", "formatter": "raw_text", "columns": "content"}
    file = {"file": ("mine.jsonl", content)}
    assert client.post("/sources", data=given, files=file).status_code == 201
    entry = client.get("/sources/mine").json()["entry"]
    assert entry["label_columns"] == {"programming_language": "lang"}
    page = client.get("/sources/mine", headers=html).text
    assert 'name="programming_language_column"' in page
    changed = client.post(
        "/sources/mine",
        data={"domain_column": "topic", "programming_language_column": ""},
        headers=html,
        follow_redirects=True,
    )
    assert changed.status_code == 200
    view = client.get("/sources/mine").json()
    assert view["entry"]["label_columns"] == {"domain": "topic"}
    assert {tuple(row["facets"].items()) for row in view["preview"]} == {(("domain", "devops"),)}

"""Sets in and out in a browser: import, downloads, two side by side."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from app.calibration.building import build_set
from app.calibration.built_set import BuiltSet
from app.calibration.spec import SetSpec, Slice
from app.facets import Facet
from app.set_files.reading import read_set_file
from app.settings import Settings
from tests.app.set_files.samples import SHORT
from tests.seed import small_spec

FIRST = SetSpec(
    name="First",
    slices=(
        Slice(name="=code()", rows=6, facets={Facet.PROGRAMMING_LANGUAGE: ("Rust", "Go")}),
        Slice(name="German", rows=3, facets={Facet.SPOKEN_LANGUAGE: ("de",)}),
    ),
    max_length=64,
    sources=("permissive",),
)
SECOND = FIRST.model_copy(
    update={
        "name": "Second",
        "slices": (
            FIRST.slices[0],
            FIRST.slices[1].model_copy(update={"rows": 5}),
            Slice(name="Hebrew", rows=2, facets={Facet.SPOKEN_LANGUAGE: ("he",)}),
        ),
    }
)


@pytest.fixture
def two_sets(client: TestClient, settings: Settings, model_dir: Path) -> list[tuple[str, BuiltSet]]:
    """Two saved sets and what was built of them."""
    made = []
    for spec in (FIRST, SECOND):
        saved = client.post("/sets", json=spec.model_dump(mode="json")).json()["id"]
        built = build_set(
            spec,
            tokenizer_dir=model_dir,
            sets_dir=settings.sets_dir,
            index_dir=settings.index_dir,
        )
        made.append((saved, built))
    return made


def test_the_page_takes_a_file_or_its_text(client: TestClient, html: dict) -> None:
    page = client.get("/sets/import", headers=html).text
    assert 'enctype="multipart/form-data"' in page
    assert 'type="file"' in page
    assert "<textarea" in page
    assert "/sets/import" in client.get("/sets", headers=html).text


def test_a_file_is_told_and_nothing_is_kept(client: TestClient, html: dict) -> None:
    files = {"file": ("my_set.yaml", SHORT.encode(), "application/yaml")}
    page = client.post("/sets/import", files=files, headers=html).text
    assert "<h1>my_set</h1>" in page
    assert "7 entries" in page
    assert "60 rows" in page
    assert "The comment says 32 rows" in page
    assert "line 52" in page
    assert "<script>" not in page
    assert client.get("/sets").json()["sets"] == []


@pytest.mark.parametrize(("keep", "where"), [("set", "/sets/"), ("compose", "/sets/new?like=")])
def test_one_click_keeps_it(client: TestClient, html: dict, keep: str, where: str) -> None:
    form = {"text": SHORT.replace("\n", "\r\n"), "file_name": "my.yaml", "name": "Ours"}
    kept = client.post("/sets/import", data={**form, "keep": keep}, headers=html)
    assert kept.status_code == 303
    (saved,) = client.get("/sets").json()["sets"]
    assert kept.headers["location"] == where + saved["id"]
    assert saved["name"] == "Ours"
    page = client.get(kept.headers["location"], headers=html)
    assert page.status_code == 200
    assert "humaneval-rust" in page.text
    spec = client.get(f"/sets/{saved['id']}").json()["spec"]
    for name in spec["sources"]:  # those that were new are in the catalogue now
        assert client.get(f"/sources/{name}").status_code == 200, name


def test_what_is_to_be_known_of_the_file_stays_with_the_set(client: TestClient, html: dict) -> None:
    sent = {"text": SHORT, "file_name": "mine.yaml", "keep": True}
    kept = client.post("/sets/import", json=sent).json()
    notes = client.get(f"/sets/{kept['id']}").json()["imported"]
    assert notes["file_name"] == "mine.yaml"
    assert notes["lines"] == kept["found"]["lines"]
    page = client.get(f"/sets/{kept['id']}", headers=html).text
    assert f"{len(kept['found']['warnings'])} warnings at" in page
    assert "The comment says 32 rows" in page
    composed = client.post("/sets", json=small_spec().model_dump(mode="json")).json()
    assert composed["imported"] is None
    assert (
        "What to know of its file" not in client.get(f"/sets/{composed['id']}", headers=html).text
    )


def test_a_program_gets_the_document(client: TestClient) -> None:
    view = client.post("/sets/import", json={"text": SHORT, "file_name": "a.yaml"}).json()
    assert (view["found"]["rows"], view["found"]["entries"], view["id"]) == (60, 7, None)
    assert {"line", "message"} == set(view["found"]["warnings"][0])
    kept = client.post("/sets/import", json={"text": SHORT, "keep": True})
    assert kept.status_code == 201
    assert kept.headers["location"] == f"/sets/{kept.json()['id']}"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (SHORT.replace("num_samples: 20", "num_samples: -20").encode(), "num_samples: -20 rows"),
        (b"calibration_set: [", "my.yaml, line"),
        (b"a: \xff\xfe\x00", "is not UTF-8"),
        (b"", "is empty"),
        (b"\x1f\x8b\x08" + bytes(range(256)), "is not UTF-8"),
    ],
)
def test_a_file_that_is_no_set_comes_back_with_a_sentence(
    client: TestClient, html: dict, content: bytes, sentence: str
) -> None:
    files = {"file": ("my.yaml", content, "application/yaml")}
    refused = client.post("/sets/import", files=files, headers=html)
    assert refused.status_code == 422
    assert 'role="alert"' in refused.text
    assert sentence in refused.text
    if content.startswith(b"calibration_set:\n"):  # what was given is not lost
        assert "num_samples: -20" in refused.text


def test_what_is_too_large_is_not_read(client: TestClient, html: dict) -> None:
    files = {"file": ("huge.yaml", b"a" * 600_000, "application/yaml")}
    refused = client.post("/sets/import", files=files, headers=html)
    assert (refused.status_code, "at most 500,000" in refused.text) == (422, True)
    files = {"file": ("huge.yaml", b"a" * 3_000_000, "application/yaml")}
    refused = client.post("/sets/import", files=files, headers=html)
    assert (refused.status_code, "3,000," in refused.text) == (422, True)


def test_html_of_a_file_is_shown_and_not_run(client: TestClient, html: dict) -> None:
    text = SHORT.replace("# General chat (8", "# <script>alert(1)</script> (8")
    page = client.post("/sets/import", data={"text": text}, headers=html).text
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_set_goes_out_and_comes_back(client: TestClient, html: dict) -> None:
    kept = client.post("/sets/import", json={"text": SHORT, "keep": True}).json()["id"]
    spec = client.get(f"/sets/{kept}").json()["spec"]
    file = client.get(f"/sets/{kept}/quantizers.yaml")
    assert file.headers["content-disposition"] == f'attachment; filename="{kept}.yaml"'
    assert client.post("/sets/import", json={"text": file.text, "keep": True}).json()["id"] == kept
    own = client.get(f"/sets/{kept}/calibrant.yaml").text
    assert read_set_file(own, "own.yaml").spec.model_dump(mode="json") == spec
    page = client.get(f"/sets/{kept}", headers=html).text
    assert f"/sets/{kept}/quantizers.yaml" in page


def test_what_the_format_cannot_say_is_refused_by_name(client: TestClient, html: dict) -> None:
    saved = client.post("/sets", json=FIRST.model_dump(mode="json")).json()["id"]
    refused = client.get(f"/sets/{saved}/quantizers.yaml")
    assert refused.status_code == 422
    assert "gives facets" in refused.json()["error"]
    assert "gives facets" in client.get(f"/sets/{saved}", headers=html).text
    assert client.get("/sets/none/quantizers.yaml").status_code == 404


def test_the_rows_of_a_build(
    client: TestClient, html: dict, two_sets: list[tuple[str, BuiltSet]]
) -> None:
    saved, built = two_sets[0]
    page = client.get(f"/sets/{saved}", headers=html).text
    for ending in ("parquet", "jsonl"):
        assert f"/sets/built/{built.id}/rows.{ending}" in page
    lines = client.get(f"/sets/built/{built.id}/rows.jsonl").text.splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == built.rows
    assert [message["role"] for message in rows[0]["messages"]] == ["user", "assistant"]
    table = pq.read_table(io.BytesIO(client.get(f"/sets/built/{built.id}/rows.parquet").content))
    assert table["text"].to_pylist() == [row["text"] for row in rows]
    assert table["input_ids"].to_pylist() == built.table(["input_ids"])["input_ids"].to_pylist()
    for name in ("0" * 16, "..", "%2e%2e", "nothing"):
        assert client.get(f"/sets/built/{name}/rows.jsonl").status_code == 404


def test_two_builds_side_by_side(
    client: TestClient, html: dict, two_sets: list[tuple[str, BuiltSet]]
) -> None:
    (first, a), (second, b) = two_sets
    view = client.get(f"/sets/diff?a={first}&b={second}").json()
    held = view["difference"]["held"]
    assert (held["total"]["a_rows"], held["total"]["b_rows"]) == (a.rows, b.rows)
    assert view["difference"]["b"]["built"] == b.id
    places = {change["place"] for change in view["difference"]["composition"]}
    assert {"name", "slices.German.rows", "slices.Hebrew.rows"} <= places
    assert {one["name"]: one["presence"] for one in held["slices"]}["Hebrew"] == "only B"
    page = client.get(f"/sets/diff?a={first}&b={second}", headers=html).text
    assert "only in B" in page
    assert 'class="more"' in page
    assert "+2" in page or "+1" in page
    by_build = client.get(f"/sets/diff?a={a.id}&b={b.id}").json()
    assert by_build["difference"]["held"] == held
    only_b = client.get(f"/sets/diff?a={first}&b={second}&rows=only%20B").json()["rows"]
    assert only_b["total"] == held["counts"]["only_b"]
    assert {row["presence"] for row in only_b["rows"]} == {"only B"}


def test_its_csv_holds_every_row_and_no_formula(
    client: TestClient, two_sets: list[tuple[str, BuiltSet]]
) -> None:
    (_, a), (_, b) = two_sets
    answer = client.get(f"/sets/diff?a={a.id}&b={b.id}&format=csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    held = client.get(f"/sets/diff?a={a.id}&b={b.id}").json()["difference"]["held"]
    assert len(rows) == len(held["rows"]) > 0
    assert not any(value.startswith("=") for row in rows for value in row.values())


def test_the_same_set_twice_is_the_same(
    client: TestClient, html: dict, two_sets: list[tuple[str, BuiltSet]]
) -> None:
    saved = two_sets[0][0]
    page = client.get(f"/sets/diff?a={saved}&b={saved}", headers=html).text
    assert "the same" in page
    assert "The same, field by field." in page


def test_a_choice_of_sets_and_sets_that_are_not_there(client: TestClient, html: dict) -> None:
    assert "Two sets are needed" in client.get("/sets/diff", headers=html).text
    assert client.get("/sets/diff?a=none&b=none", headers=html).status_code == 404
    assert client.get("/sets/diff?a=/etc/passwd&b=starter").status_code == 404
    view = client.get("/sets/diff?a=starter&b=starter").json()
    assert (view["is_same"], view["difference"]["held"]) == (True, None)

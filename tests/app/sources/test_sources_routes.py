from __future__ import annotations

import csv
import io

from fastapi.testclient import TestClient


def test_every_pack_is_listed_with_its_licences(client: TestClient, html: dict) -> None:
    page = client.get("/sources", headers=html).text
    for word in ("permissive", "cc-by-sa", "copyleft", "NOTICE", "MIT", "rows of each"):
        assert word in page


def test_json_and_csv_have_the_same_rows(client: TestClient) -> None:
    view = client.get("/sources").json()
    text = client.get("/sources?format=csv").text
    table = list(csv.DictReader(io.StringIO(text)))
    assert [row["name"] for row in table] == [row["source"]["name"] for row in view["sources"]]
    assert sum(int(row["rows"]) for row in table) == view["rows"]


def test_the_notice_names_the_packages(client: TestClient) -> None:
    notice = client.get("/sources/permissive/NOTICE")
    assert notice.headers["content-type"].startswith("text/plain")
    assert "licence of these passages" in notice.text


def test_an_unknown_pack_is_not_found(client: TestClient) -> None:
    assert client.get("/sources/nothing/NOTICE").status_code == 404

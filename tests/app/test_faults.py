"""What is told when the database does not answer, and when the program itself fails."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError

from app import database
from app.main import create_app
from app.settings import Settings


@pytest.fixture
def impatient(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """The pages of an empty installation that waits a moment for its database."""
    monkeypatch.setattr(database, "SQLITE_BUSY_SECONDS", 0)
    database.engine_for.cache_clear()
    return TestClient(create_app(settings), base_url="http://127.0.0.1", follow_redirects=False)


def test_a_database_that_another_process_holds(
    impatient: TestClient, settings: Settings, html: dict[str, str]
) -> None:
    gates = {"kl_mean": "0.5"}
    assert impatient.get("/jobs").status_code == 200
    with closing(sqlite3.connect(settings.data_dir / "calibrant.sqlite3")) as other:
        other.execute("BEGIN IMMEDIATE")
        page = impatient.post("/gates", data=gates, headers=html)
        document = impatient.post("/gates", data=gates)
        assert impatient.get("/jobs").status_code == 200  # Reading goes on (WAL).
    assert (page.status_code, document.status_code) == (503, 503)
    assert "Another process has held the database" in page.text
    assert 'href="/jobs"' in page.text
    assert "try again" in document.json()["error"]
    assert impatient.post("/gates", data=gates, headers=html).status_code == 303


def test_a_database_that_is_gone_is_told_with_its_reason() -> None:
    refused = OperationalError("", {}, Exception("connection refused.\n\tIs the server running?"))
    assert "(connection refused), so nothing" in database.why_away(refused).sentence


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_a_fault_has_a_page_of_ours(settings: Settings, accept: str) -> None:
    app = create_app(settings)

    def fail() -> None:
        raise ZeroDivisionError

    app.add_api_route("/fails", fail)
    client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
    answer = client.get("/fails", headers={"accept": accept})
    assert answer.status_code == 500
    assert answer.headers["content-type"].startswith(accept)
    assert "/fails failed by a fault of this program." in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"

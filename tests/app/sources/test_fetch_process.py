"""A fetch asked for on a page: a process beside the server, told of in the source's record."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session

from app.calibration.service import save_set
from app.calibration.spec import SetSpec, Slice
from app.sources.catalogue import get_entry
from app.sources.service import keep
from tests.app.sources.hub_server import DataSet, commit_of, stand_in
from tests.app.sources.test_hub import chats

PATIENCE_SECONDS = 120.0
CHATS = {"hub_id": "me/chats", "formatter": "chat_completion", "columns": ["messages"]}


def ended(client: TestClient, name: str) -> dict:
    """The source when its fetch has ended."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        source = client.get(f"/sources/{name}").json()["source"]
        if source["state"] != "fetching":
            return source
        time.sleep(0.2)
    raise AssertionError("the fetch did not end")


def test_a_fetch_runs_beside_the_server(
    client: TestClient, html: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with stand_in() as hub:
        hub.sets["me/chats"] = DataSet({commit_of(1): {"train.jsonl": chats(12)}})
        for name, value in {
            "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf"),
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        client.post("/sources", json=CHATS)
        started = client.post("/sources/chats/fetch", headers=html)
        assert (started.status_code, started.headers["location"]) == (303, "/sources/chats")
        assert client.get("/sources/chats").json()["source"]["state"] == "fetching"
        assert 'hx-trigger="load' in client.get("/sources/chats", headers=html).text
        assert client.post("/sources/chats/fetch").status_code == 409
        assert client.post("/sources/chats/delete").status_code == 409
        source = ended(client, "chats")
        assert (source["state"], source["rows"]) == ("ready", 12)
        assert source["commit"] == commit_of(1)
        del hub.sets["me/chats"]
        client.post("/sources/chats/fetch")
        source = ended(client, "chats")
    assert source["state"] == "failed"
    assert "The hub has no such data set" in source["problem"]
    assert source["rows"] == 12
    assert "The hub has no such data set" in client.get("/sources/chats", headers=html).text


def test_every_source_of_a_set_is_fetched_one_after_the_other(
    client: TestClient, html: dict, session: Session, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    part = Slice(name="all", weight=1)
    names = ("chats", "others", "permissive")
    saved = save_set(
        session, SetSpec(name="Mine", slices=(part,), token_budget=1000, sources=names)
    )
    with stand_in() as hub:
        hub.sets["me/chats"] = DataSet({commit_of(1): {"train.jsonl": chats(12)}})
        for name, value in {
            "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf"),
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        client.post("/sources", json=CHATS)
        client.post("/sources", json={**CHATS, "name": "others", "hub_id": "me/nothing"})
        page = client.get(f"/sources?set={saved.id}", headers=html).text
        assert "Fetch the 2 sources without rows here" in page
        started = client.post(f"/sources/fetch?set={saved.id}")
        assert (started.status_code, started.json()["matching"]) == (202, 3)
        assert client.post(f"/sources/fetch?set={saved.id}").status_code == 409
        assert ended(client, "others")["state"] == "failed"
        assert ended(client, "chats")["rows"] == 12
    assert client.get("/sources?set=none").status_code == 404


def test_a_fetch_whose_process_is_gone_has_failed(
    client: TestClient, html: dict, session: Session
) -> None:
    client.post("/sources", json=CHATS)
    record = keep(session, get_entry(session, "chats"))
    record.fetch_pid, record.fetch_started = 2**22 + 1, 1.0
    session.add(record)
    session.commit()
    page = client.get("/sources/chats", headers=html).text
    assert "ended without a word" in page
    assert json.loads(client.get("/sources?state=failed").text)["matching"] == 1

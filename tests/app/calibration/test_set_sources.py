"""A set whose sources have no rows here: what is missing, and fetching it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient

from app.calibration.building import build_set
from app.calibration.importing import keep_imported, read_for
from app.calibration.service import spec_of
from app.calibration.set_sources import fetch_missing, missing_sources, start_fetch
from app.database import migrate, session_for
from app.errors import Conflict
from app.settings import Settings


def file_of(folder: Path, *names: str) -> str:
    """A set of folders, each with a file of conversations; the last of them is not there."""
    for name in names[:-1]:
        (folder / name).mkdir()
        talks = [
            [
                {"role": "user", "content": f"Hello {name}, number {number}"},
                {"role": "assistant", "content": "Good evening."},
            ]
            for number in range(40)
        ]
        lines = "\n".join(json.dumps({"messages": talk}) for talk in talks)
        (folder / name / "rows.jsonl").write_text(lines)
    entry = {"split": "train", "columns": ["messages"], "formatter": "chat_completion"}
    entries = [{"dataset": str(folder / name), **entry, "num_samples": 3} for name in names]
    return yaml.safe_dump({"calibration_set": {"max_seq_length": 64, "datasets": entries}})


def test_an_imported_set_is_fetched_and_built(
    settings: Settings, model_dir: Path, tmp_path: Path
) -> None:
    migrate(settings)
    with session_for(settings) as session:
        found = read_for(session, file_of(tmp_path, "one", "two", "gone"), "set.yaml")
        spec = spec_of(keep_imported(session, found))
        names = [one.name for one in missing_sources(session, settings, spec)]
        assert names == ["one", "two", "gone"]
        done = fetch_missing(session, settings, spec)
        assert done.fetched == ["one", "two"]  # what is gone stops neither
        assert [failure.source for failure in done.failed] == ["gone"]
        (missing,) = missing_sources(session, settings, spec)
        assert (missing.name, missing.is_fetching) == ("gone", False)
        assert missing.problem == done.failed[0].reason
    here = spec.model_copy(update={"sources": ("one", "two"), "slices": spec.slices[:2]})
    built = build_set(here, tokenizer_dir=model_dir, sets_dir=settings.sets_dir)
    assert built.rows == 6


def test_the_page_offers_it_in_one_click(client: TestClient, html: dict, tmp_path: Path) -> None:
    text = file_of(tmp_path, "one", "gone")
    kept = client.post("/sets/import", json={"text": text, "keep": True}).json()["id"]
    page = client.get(f"/sets/{kept}", headers=html).text
    assert "2 of 2 sources" in page
    assert "Fetch them now" in page
    started = client.post(f"/sets/{kept}/fetch", headers=html)
    assert started.headers["location"] == f"/sets/{kept}"
    assert client.post(f"/sets/{kept}/fetch").status_code == 409
    deadline = time.monotonic() + 120
    while client.get(f"/sets/{kept}/missing").json()["missing"][0]["name"] == "one":
        assert time.monotonic() < deadline
        time.sleep(0.5)
    while client.get(f"/sets/{kept}/missing").json()["missing"][0]["problem"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    part = client.get(f"/sets/{kept}/missing", headers=html).text
    assert "1 of 2 sources" in part
    assert "could not be fetched" in part
    assert "<html" not in part


def test_nothing_to_fetch_and_a_source_that_is_gone(settings: Settings, tmp_path: Path) -> None:
    migrate(settings)
    with session_for(settings) as session:
        found = read_for(session, file_of(tmp_path, "one", "gone"), "set.yaml")
        never_kept = found.spec
        problems = [one.problem for one in missing_sources(session, settings, never_kept)]
        assert all(problem and "There is no source" in problem for problem in problems)
        packs = never_kept.model_copy(update={"sources": ("permissive",)})
        with pytest.raises(Conflict, match="has its rows here"):
            start_fetch(session, settings, "x", packs)

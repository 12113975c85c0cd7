"""A set whose sources have no rows here: what is missing, and fetching it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from fastapi.testclient import TestClient

from app.calibration.building import build_set
from app.calibration.service import get_set, spec_of
from app.calibration.set_sources import missing_sources
from app.database import migrate, session_for
from app.set_files.service import read_for
from app.settings import Settings
from tests.integration.server import calibrant


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
    file = tmp_path / "set.yaml"
    file.write_text(file_of(tmp_path, "one", "two", "gone"))
    kept = document(settings, "import", str(file))["id"]
    fetched = calibrant(settings.data_dir, "sets", "fetch", kept, "--json")
    assert fetched.returncode == 2
    said = json.loads(fetched.stdout)
    assert [source["name"] for source in said["sources"]] == ["one", "two"]
    assert list(said["failed"]) == ["gone"]  # and it stopped neither
    with session_for(settings) as session:
        spec = spec_of(get_set(session, kept))
        (missing,) = missing_sources(session, settings, spec)
    assert (missing.name, missing.problem) == ("gone", said["failed"]["gone"])
    here = spec.model_copy(update={"sources": ("one", "two"), "slices": spec.slices[:2]})
    built = build_set(here, tokenizer_dir=model_dir, sets_dir=settings.sets_dir)
    assert built.rows == 6


def document(settings: Settings, *arguments: str) -> Any:
    done = calibrant(settings.data_dir, "sets", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_page_offers_it_in_one_click(client: TestClient, html: dict, tmp_path: Path) -> None:
    text = file_of(tmp_path, "one", "gone")
    kept = client.post("/sets/import", json={"text": text, "keep": True}).json()["id"]
    page = client.get(f"/sets/{kept}", headers=html).text
    assert "2 of 2 sources have no rows here yet" in page
    assert f'action="/sources/fetch?set={kept}"' in page
    missing = client.get(f"/sets/{kept}").json()["missing"]
    assert [one["name"] for one in missing] == ["one", "gone"]
    starter = client.post("/sets", json=STARTER).json()["id"]
    assert "no rows here yet" not in client.get(f"/sets/{starter}", headers=html).text
    assert f'<a href="/sets/{starter}">' in client.get("/sources/permissive", headers=html).text


STARTER = {"name": "s", "sources": ["permissive"], "slices": [{"name": "a", "rows": 2}]}


def test_a_source_that_is_in_no_catalogue(settings: Settings, tmp_path: Path) -> None:
    migrate(settings)
    with session_for(settings) as session:
        found = read_for(session, file_of(tmp_path, "one", "gone"), "set.yaml")
        problems = [one.problem for one in missing_sources(session, settings, found.spec)]
    assert all(problem and "There is no source" in problem for problem in problems)

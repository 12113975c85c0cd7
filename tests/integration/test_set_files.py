"""``calibrant sets import``, ``export`` and ``diff`` as scripts use them."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from app.settings import ROOT
from tests.app.set_files.samples import SHORT, fifty_entries
from tests.integration.server import calibrant

MODEL = ROOT / "demo" / "model"
SMALL = """
name: small
max_length: 64
sources: [permissive]
slices:
  - {name: code, rows: 4, facets: {programming_language: [Rust, Go]}}
"""


def document(data_dir: Path, *arguments: str) -> Any:
    done = calibrant(data_dir, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


def test_import_says_what_is_in_the_file_and_keeps_it(place: Path) -> None:
    file = place / "fifty.yaml"
    file.write_text(fifty_entries())
    said = document(place, "sets", "import", str(file), "--dry-run")
    assert set(said) >= {
        "name", "entries", "rows", "repositories", "max_seq_length", "seed", "spoken_languages",
        "programming_languages", "categories", "warnings",
    }  # fmt: skip
    assert (said["entries"], said["rows"], said["repositories"], said["id"]) == (50, 590, 48, None)
    assert document(place, "sets", "list") == []
    kept = document(place, "sets", "import", str(file))
    assert [one["id"] for one in document(place, "sets", "list")] == [kept["id"]]
    shown = document(place, "sets", "show", kept["id"])["imported"]
    told = [(line["line"], said) for line in shown["lines"] for said in line["messages"]]
    assert told == [(one["line"], one["message"]) for one in kept["warnings"]]
    assert shown["file_name"] == "fifty.yaml"
    assert f"line {told[0][0]}: {told[0][1]}" in calibrant(place, "sets", "show", kept["id"]).stdout
    exported = calibrant(place, "sets", "export", kept["id"])
    assert exported.returncode == 0
    again = place / "again.yaml"
    again.write_text(exported.stdout)
    assert document(place, "sets", "import", str(again))["id"] == kept["id"]
    assert document(place, "sets", "show", kept["id"])["imported"] == shown


def test_a_set_comes_through_a_pipe(place: Path) -> None:
    pipe = place / "pipe.yaml"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(SMALL,))
    writer.start()
    said = document(place, "sets", "import", str(pipe), "--dry-run")
    writer.join()
    assert (said["name"], said["rows"]) == ("small", 4)


def test_what_is_no_set_is_one_sentence_and_exit_2(place: Path) -> None:
    file = place / "bad.yaml"
    file.write_text(SHORT.replace("num_samples: 20", "num_samples: -20"))
    refused = calibrant(place, "sets", "import", str(file), "--json")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.strip() == (
        "bad.yaml, line 58, num_samples: -20 rows: give 1 to 100,000,000, or all."
    )
    gone = calibrant(place, "sets", "import", str(place / "gone.yaml"))
    assert (gone.returncode, "gone.yaml cannot be read: No such file" in gone.stderr) == (2, True)


def test_a_value_that_cannot_be_is_told_in_our_own_words(place: Path) -> None:
    refused = calibrant(place, "sources", "preview", "permissive", "--rows", "0")
    assert refused.returncode == 2
    assert "Invalid value for '--rows': '0' is too small: give at least 1." in refused.stderr
    refused = calibrant(place, "sets", "list", CALIBRANT_UPLOAD_BYTES="0")
    assert refused.returncode == 2
    assert refused.stderr == "CALIBRANT_UPLOAD_BYTES: '0' is too small: give at least 1.\n"


def test_rows_go_out_and_two_builds_are_compared(place: Path) -> None:
    for name, rows in (("a", 4), ("b", 6)):
        (place / f"{name}.yaml").write_text(SMALL.replace("rows: 4", f"rows: {rows}"))
    first, second = (
        document(place, "sets", "build", str(place / f"{name}.yaml"), "--model", str(MODEL))
        for name in ("a", "b")
    )
    out = place / "out"
    out.mkdir()
    done = document(
        place, "sets", "export", first["id"], "--format", "yaml,jsonl,parquet", "--out", str(out)
    )
    assert [one["format"] for one in done["files"]] == ["calibrant", "jsonl", "parquet"]
    assert "gives facets" in done["warnings"][0]
    assert all(Path(one["path"]).stat().st_size for one in done["files"])
    lines = (out / f"{first['id']}.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == first["rows"]
    assert set(json.loads(lines[0])) >= {"messages", "text"}
    found = document(place, "sets", "diff", first["id"], second["id"])
    assert found["held"]["total"]["b_rows"] - found["held"]["total"]["a_rows"] == 2
    assert [change["place"] for change in found["composition"]] == ["slices.code.rows"]
    files = document(place, "sets", "diff", str(place / "a.yaml"), str(place / "b.yaml"))
    assert files["held"]["counts"] == found["held"]["counts"]
    needs = calibrant(place, "sets", "export", str(place / "a.yaml"), "--format", "jsonl")
    assert (needs.returncode, "give --model" in needs.stderr) == (2, True)
    wrong = calibrant(place, "sets", "export", "starter", "--format", "xml")
    assert (wrong.returncode, "There is no format 'xml'" in wrong.stderr) == (2, True)

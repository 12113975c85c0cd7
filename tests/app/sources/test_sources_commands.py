"""``calibrant sources``, as a person or a script runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app as calibrant
from app.errors import Conflict, NotFound, Refused
from app.settings import Settings

ROWS = [{"prompt": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(1, 6)]


@pytest.fixture
def run(settings: Settings) -> Any:
    def command(*arguments: str) -> Any:
        given = ["--data-dir", str(settings.data_dir), "sources", *arguments, "--json"]
        done = CliRunner().invoke(calibrant, given, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return command


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    file = tmp_path / "sums.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in ROWS))
    return file


def test_add_list_and_preview(run: Any, sums: Path) -> None:
    added = run("add", str(sums), "--tag", "domain=math", "--tag", "spoken_language=fr")
    assert added["source"]["formatter"] == "prompt_answer"
    [listed] = run("list", "--kind", "upload")
    assert (listed["name"], listed["rows"], listed["in_use"]) == ("sums", 5, True)
    assert listed["facets"]["spoken_language"] == {"fr": 5}
    assert [one["name"] for one in run("list", "--tag", "domain=math", "--kind", "upload")] == [
        "sums"
    ]
    [row] = run("preview", "sums", "--rows", "1")
    assert [message["content"] for message in row["messages"]] == ["What is 1 + 1?", "2"]


def test_a_folder_is_fetched_anew(run: Any, sums: Path) -> None:
    (sums.parent / "inner").mkdir()
    sums.rename(sums.parent / "inner" / "sums.jsonl")
    run("add", str(sums.parent / "inner"), "--name", "mine")
    (sums.parent / "inner" / "more.jsonl").write_text(json.dumps({"prompt": "a", "answer": "b"}))
    assert run("fetch", "mine")["sources"][0]["rows"] == 6
    assert run("list", "--state", "ready", "--kind", "folder")[0]["rows"] == 6


def test_tag_disable_enable_delete(run: Any, sums: Path) -> None:
    run("add", str(sums))
    run("tag", "sums", "--tag", "domain=math")
    run("tag", "sums", "--column", "programming_language=answer")
    languages = run("list", "--kind", "upload")[0]["facets"]["programming_language"]
    assert sum(languages.values()) == 5
    run("tag", "sums", "--column", "programming_language=")
    assert run("list", "--kind", "upload")[0]["facets"]["programming_language"] == {}
    assert run("list", "--kind", "upload")[0]["facets"]["domain"] == {"math": 5}
    run("disable", "sums")
    assert run("list", "--kind", "upload")[0]["in_use"] is False
    run("enable", "sums")
    assert run("delete", "sums") == {"name": "sums", "done": "deleted"}
    assert run("list", "--kind", "upload") == []


def test_the_starter_packs_are_listed_first(run: Any) -> None:
    assert [one["name"] for one in run("list")][:3] == ["permissive", "cc-by-sa", "copyleft"]


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (["preview", "nothing"], NotFound, "There is no source 'nothing'"),
        (["preview", "ultrachat-200k"], Refused, "has no rows here yet: calibrant sources fetch"),
        (["add", "/no/such/place"], Refused, "There is no file or folder /no/such/place"),
        (["add", "no-such-rows.jsonl"], Refused, "There is no file or folder no-such-rows.jsonl"),
        (["add", "data.CSV.gz"], Refused, "There is no file or folder data.CSV.gz"),
        (["add", ""], Refused, "Give a file, a folder, or the id of a data set of the hub."),
        (["list", "--tag", "language=fr"], Refused, "is not facet=value; the facets are"),
        (["list", "--kind", "cloud"], Refused, "kind: "),
        (["delete", "permissive"], Conflict, "comes with Calibrant"),
    ],
)
def test_what_cannot_be_is_a_sentence(
    settings: Settings, arguments: list[str], error: type[Refused], said: str
) -> None:
    given = ["--data-dir", str(settings.data_dir), "sources", *arguments]
    with pytest.raises(error) as refused:
        CliRunner().invoke(calibrant, given, catch_exceptions=False)
    assert said in refused.value.sentence
    assert refused.value.exit_code == 2

"""Data sets of the hub by the real loading code, over HTTP, against a stand-in on loopback."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.settings import ROOT
from tests.app.sources.hub_server import DataSet, StandIn, commit_of, stand_in

SHARDS, SHARD_ROWS = 3, 300
TOKEN = "hf_secretsecret"


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=50, compression="none")
    return sink.getvalue()


def sums(version: int) -> dict[str, bytes]:
    """Three shards; each row names its place."""
    return {
        f"data/train-{shard:05}-of-{SHARDS:05}.parquet": parquet(
            [
                {"prompt": f"{shard * SHARD_ROWS + i}", "answer": f"v{version} " + "a" * 40,
                 "picture": b"\x89PNG"}
                for i in range(SHARD_ROWS)
            ]
        )
        for shard in range(SHARDS)
    }  # fmt: skip


SUBSETS = b"""---
configs:
- config_name: easy
  data_files:
  - {split: train, path: easy/train.jsonl}
  - {split: test, path: easy/test.jsonl}
- config_name: hard
  data_files: hard.jsonl
---
"""


def chats(count: int) -> bytes:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    rows = [{"messages": [{**turns[0], "content": f"Hi {i}"}, turns[1]]} for i in range(count)]
    return "\n".join(json.dumps(row) for row in rows).encode()


@contextmanager
def process(tmp_path: Path, **environment: str) -> Iterator[Callable[..., dict[str, Any]]]:
    """What a process answers that fetches from a hub."""
    given = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.app.sources.fetching_process"],
        cwd=ROOT,
        env=os.environ | given | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(tmp_path / "said.txt").open("wb"),
        text=True,
    ) as running:
        assert running.stdin
        assert running.stdout

        def ask(entry: dict[str, Any], **more: Any) -> dict[str, Any]:
            running.stdin.write(json.dumps({"entry": entry, **more}) + "\n")
            running.stdin.flush()
            line = running.stdout.readline()
            assert line, (tmp_path / "said.txt").read_text()[-3000:]
            return json.loads(line)

        yield ask
        running.stdin.close()


@pytest.fixture(scope="module")
def hub() -> Iterator[StandIn]:
    with stand_in() as made:
        made.sets["me/sums"] = DataSet({commit_of(1): sums(1)})
        files = {
            "README.md": SUBSETS, "easy/train.jsonl": chats(20), "easy/test.jsonl": chats(5),
            "hard.jsonl": chats(7),
        }  # fmt: skip
        made.sets["me/chats"] = DataSet({commit_of(2): files})
        gated = {"data.jsonl": chats(3)}
        made.sets["me/gated"] = DataSet({commit_of(3): gated}, gated=True, token=TOKEN)
        made.sets["me/program"] = DataSet({commit_of(4): {"program.py": b"raise SystemExit"}})
        yield made


@pytest.fixture(scope="module")
def fetched(hub: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable]:
    tmp_path = tmp_path_factory.mktemp("fetching")
    with process(tmp_path, HF_ENDPOINT=hub.url) as ask:
        yield ask
    assert TOKEN not in (tmp_path / "said.txt").read_text()


@pytest.fixture
def ask(fetched: Callable, hub: StandIn, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Fetch an entry into a directory of the test's own."""
    for asked in (hub.requests, hub.ranges, hub.failures, hub.breaks, hub.range_breaks):
        asked.clear()

    def fetch(hub_id: str = "me/sums", more: dict[str, Any] | None = None, **origin: Any) -> Any:
        entry = {
            "name": "sums", "columns": ["prompt", "answer"], "formatter": "prompt_answer",
            "origin": {"kind": "hub", "id": hub_id, **origin},
        } | (more or {})  # fmt: skip
        asked = {key: entry.pop(key) for key in ("ensure", "token") if key in entry}
        return fetched(entry, sources_dir=str(tmp_path / "sources"), **asked)

    return fetch


def places(said: dict[str, Any]) -> list[int]:
    return [int(json.loads(row["messages"])[0]["content"]) for row in said["rows"]]


CHATS = {"columns": ["messages"], "formatter": "chat_completion"}


def test_a_sample_is_random_seeded_and_pinned_to_a_commit(ask: Callable) -> None:
    said = ask(rows_limit=60, seed=1)
    assert said["manifest"]["commit"] == commit_of(1)
    assert said["manifest"]["sampling"] == "60 of all rows at random, seed 1"
    drawn = places(said)
    assert drawn == sorted(drawn)
    assert drawn != list(range(60))
    assert {place // SHARD_ROWS for place in drawn} == {0, 1, 2}
    assert [row["number"] for row in said["rows"]] == [place + 1 for place in drawn]
    assert places(ask(rows_limit=60, seed=1)) == drawn
    assert places(ask(rows_limit=60, seed=2)) != drawn
    assert len(places(ask(rows_limit=None))) == SHARDS * SHARD_ROWS
    assert not said["torch"]


def test_a_streamed_sample_is_shuffled_and_seeded(ask: Callable) -> None:
    origin = {"streaming": True, "rows_limit": 60, "buffer_rows": 200}
    said = ask(**origin, seed=1)
    drawn = places(said)
    assert len(set(drawn)) == 60
    assert drawn != sorted(drawn)
    assert max(drawn) - min(drawn) > 100
    assert places(ask(**origin, seed=1)) == drawn
    assert places(ask(**origin, seed=2)) != drawn
    assert "shuffled shards" in said["manifest"]["sampling"]
    assert not said["torch"]


def test_a_moved_branch_is_followed_only_when_fetched_anew(ask: Callable, hub: StandIn) -> None:
    old = ask(rows_limit=20)["manifest"]
    hub.sets["me/sums"].commits[commit_of(9)] = sums(9)
    try:
        assert ask(rows_limit=20, more={"ensure": True})["manifest"] == old
        new = ask(rows_limit=20)
        assert new["manifest"]["commit"] == commit_of(9)
        assert "v9" in new["rows"][0]["text"]
        pinned = ask(rows_limit=20, revision=commit_of(1))
        assert pinned["manifest"]["commit"] == commit_of(1)
        assert pinned["manifest"]["sha256"] == old["sha256"]
    finally:
        del hub.sets["me/sums"].commits[commit_of(9)]


def test_a_subset_and_a_split_of_json_lines(ask: Callable) -> None:
    for origin, count in (
        ({"subset": "easy"}, 20),
        ({"subset": "easy", "split": "test", "streaming": True}, 5),
        ({"subset": "hard"}, 7),
    ):
        said = ask("me/chats", CHATS, **origin)
        assert said["manifest"]["rows"] == count


@pytest.mark.parametrize("streaming", [False, True])
def test_a_busy_hub_is_asked_again(ask: Callable, hub: StandIn, streaming: bool) -> None:
    hub.failures += [503, 503]
    assert len(ask(rows_limit=10, streaming=streaming)["rows"]) == 10
    hub.failures += [500] * 2000
    said = ask(rows_limit=11, streaming=streaming)
    assert said["error"] == "HubUnreachable"
    assert "HTTP 500" in said["sentence"]


def test_a_broken_download_goes_on_where_it_broke(ask: Callable, hub: StandIn) -> None:
    """huggingface_hub writes ten megabytes at a time: what of them had come is not asked again."""
    rows = [{"prompt": f"{i}", "answer": f"{i} " * 14000} for i in range(400)]
    hub.sets["me/broken"] = DataSet({commit_of(5): {"train.parquet": parquet(rows)}})
    hub.breaks.append(13_000_000)
    said = ask("me/broken", rows_limit=None)
    assert places(said) == list(range(400))
    assert hub.breaks == []
    assert "train.parquet bytes=10485760-" in hub.ranges


def test_a_broken_stream_is_read_on(ask: Callable, hub: StandIn) -> None:
    hub.range_breaks += [2000, 2000]
    said = ask(rows_limit=50, streaming=True, buffer_rows=50)
    assert hub.range_breaks == []
    assert len(said["rows"]) == 50


def test_a_hub_that_falls_silent_is_asked_again(hub: StandIn, tmp_path: Path) -> None:
    given = {"HF_HUB_DOWNLOAD_TIMEOUT": "1", "HF_HUB_ETAG_TIMEOUT": "1"}
    entry = {"name": "chats", "origin": {"kind": "hub", "id": "me/chats", "subset": "hard"}} | CHATS
    hub.stalls.append(5.0)
    with process(tmp_path, HF_ENDPOINT=hub.url, **given) as ask:
        started = time.monotonic()
        assert len(ask(entry, sources_dir=str(tmp_path / "sources"))["rows"]) == 7
    assert hub.stalls == []
    assert time.monotonic() - started < 60


def test_a_gated_data_set_needs_the_token(ask: Callable, hub: StandIn) -> None:
    refused = ask("me/gated", CHATS)
    assert refused["error"] == "Refused"
    assert "is gated: accept its terms on the hub" in refused["sentence"]
    assert len(ask("me/gated", {**CHATS, "token": TOKEN})["rows"]) == 3
    assert f"Bearer {TOKEN}" in hub.tokens


@pytest.mark.parametrize(
    ("hub_id", "more", "origin", "said"),
    [
        ("me/nothing", {}, {}, "The hub has no such data set, or it is private"),
        ("me/sums", {}, {"revision": "v7"}, "The data set has no such revision"),
        ("me/sums", {}, {"split": "trian"}, "no split 'trian'; the nearest is 'train'"),
        ("me/sums", {}, {"subset": "easy"}, "me/sums has no subset 'easy'; it has: default"),
        ("me/chats", CHATS, {"subset": "eays"}, "no subset 'eays'; the nearest is 'easy'"),
        ("me/chats", CHATS, {}, "several subsets, say which: easy, hard"),
        ("me/sums", {"columns": ["promt", "answer"]}, {}, "no column 'promt'; the nearest is 'pro"),
        ("me/sums", {"columns": ["promt", "answer"]}, {"streaming": True}, "no column 'promt'"),
        ("me/program", {}, {}, "is a program, which is never run here"),
    ],
)
def test_what_cannot_be_fetched_is_one_sentence(
    ask: Callable, hub_id: str, more: dict[str, Any], origin: dict[str, Any], said: str
) -> None:
    refused = ask(hub_id, more, **origin)
    assert refused["error"] == "Refused", refused
    assert said in refused["sentence"]
    assert "\n" not in refused["sentence"]


def test_the_command_proposes_a_formatter_by_the_first_rows(hub: StandIn, tmp_path: Path) -> None:
    given = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}

    def calibrant(*arguments: str) -> Any:
        command = [sys.executable, "-m", "app.cli", "--data-dir", str(tmp_path), "sources"]
        done = subprocess.run(
            [*command, *arguments, "--json"],
            cwd=ROOT,
            env=os.environ | given,
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)

    added = calibrant("add", "me/chats", "--subset", "easy", "--tag", "domain=misc")
    assert added["entry"]["formatter"] == "chat_completion"
    assert added["source"]["state"] == "not fetched"
    assert calibrant("fetch", "chats")["sources"][0]["rows"] == 20


def test_offline_is_said_and_what_was_fetched_is_used(ask: Callable, tmp_path: Path) -> None:
    fetched = ask(rows_limit=10)["manifest"]
    entry = fetched["entry"]
    where = str(tmp_path / "sources")
    with process(tmp_path, HF_ENDPOINT="http://127.0.0.1:9") as offline:
        assert offline(entry, sources_dir=where, ensure=True)["manifest"] == fetched
        refused = offline(entry, sources_dir=where)
        assert refused["error"] == "HubUnreachable"
        assert "http://127.0.0.1:9 does not answer" in refused["sentence"]
        assert offline(entry, sources_dir=where, ensure=True)["manifest"] == fetched
    with process(tmp_path, HF_HUB_OFFLINE="1") as told:
        assert "HF_HUB_OFFLINE is set" in told(entry, sources_dir=where)["sentence"]

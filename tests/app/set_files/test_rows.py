"""Rendered rows as files: the conversations that were rendered, and the tokens themselves."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from app.calibration.building import build_set
from app.calibration.built_set import BuiltSet
from app.calibration.spec import SetSpec
from app.errors import CompositionRefused, Refused
from app.facets import Facet
from app.set_files.rows import jsonl_lines, write_rows
from app.sources.entry import FolderOrigin, SourceEntry
from app.sources.store import Row, write_revision
from tests.app.calibration.essays import essays, spec_over, write_source

TALK = [
    {"role": "user", "content": "What is 6 × 7?"},
    {"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "function": {"name": "multiply", "arguments": '{"a": 6, "b": 7}'}}]},
    {"role": "tool", "content": "42"},
    {"role": "assistant", "content": "It is <42> & no other."},
]  # fmt: skip


@pytest.fixture
def built(model_dir: Path, tmp_path: Path) -> BuiltSet:
    """A set of a conversation with a tool, and of passages before which a prompt stands."""
    entry = SourceEntry(
        name="talks", origin=FolderOrigin(path=Path("/nowhere")), formatter="chat_completion"
    )
    rows = [Row(1, TALK, "What is 6 × 7? 42")]
    write_revision(entry, "c" * 40, rows, tmp_path / "sources")
    prompt = {"template": "In {{ value }}:\n", "facet": "spoken_language", "values": ["ar", "he"]}
    spec = SetSpec.model_validate(
        {
            "name": "t",
            "max_length": 128,
            "sources": ["talks", "permissive"],
            "slices": [
                {"name": "talks", "rows": "all", "sources": ["talks"]},
                {"name": "named", "rows": 4, "sources": ["permissive"], "prompt": prompt},
            ],
        }
    )
    return build_set(spec, tokenizer_dir=model_dir, sets_dir=tmp_path / "sets")


def test_jsonl_has_the_conversations_that_were_rendered(built: BuiltSet, tmp_path: Path) -> None:
    place = tmp_path / "out" / "rows.jsonl"
    assert write_rows(built, "jsonl", place, tmp_path / "sources") == []
    rows = [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in rows] == built.table(["text"])["text"].to_pylist()
    (talk,) = [row for row in rows if row["slice"] == "talks"]
    assert talk["messages"] == TALK
    named = [row for row in rows if row["slice"] == "named"]
    asked = sorted(row["messages"][0]["content"] for row in named)
    assert asked == ["In Arabic:\n"] * 2 + ["In Hebrew:\n"] * 2
    assert all(row["messages"][0]["content"].strip() in row["text"] for row in named)
    assert list(jsonl_lines(built, tmp_path / "sources")) == [place.read_text(encoding="utf-8")]


def test_parquet_has_the_tokens_and_only_texts_beside(built: BuiltSet, tmp_path: Path) -> None:
    place = tmp_path / "rows.parquet"
    write_rows(built, "parquet", place, tmp_path / "sources")
    table = pq.read_table(place)
    assert table["input_ids"].to_pylist() == built.table(["input_ids"])["input_ids"].to_pylist()
    for ids, mask in zip(table["input_ids"], table["attention_mask"], strict=True):
        assert len(ids) == len(mask)
    # a collator leaves out what is text, and hands on whatever else stands there
    others = [f for f in table.schema if f.name not in ("input_ids", "attention_mask")]
    assert {str(field.type) for field in others} == {"string"}
    assert {facet.value for facet in Facet} <= set(table.column_names)
    assert TALK in [json.loads(text) for text in table["messages"].to_pylist()]


@pytest.mark.parametrize(
    ("reasoning", "answer"),
    [
        ("native", {"content": "42", "reasoning_content": "6 × 7"}),
        ("stripped", {"content": "42"}),
        ("inline", {"content": "<think>\n6 × 7\n</think>\n\n42"}),
    ],
)
def test_messages_have_reasoning_where_the_set_has_it(
    model_dir: Path, tmp_path: Path, reasoning: str, answer: dict[str, str]
) -> None:
    thought = {"role": "assistant", "content": "42", "reasoning_content": "6 × 7"}
    write_source(tmp_path / "sources", "thought", [[TALK[0], thought]])
    spec = spec_over("thought", reasoning=reasoning)
    # the one row may be of either part
    for split in ("calibration", "held_out"):
        spec = spec.model_copy(update={"split": split})
        with contextlib.suppress(CompositionRefused):
            built = build_set(spec, tokenizer_dir=model_dir, sets_dir=tmp_path / "sets")
    (line,) = jsonl_lines(built, tmp_path / "sources")
    assert json.loads(line)["messages"][1] == {"role": "assistant", **answer}


def test_whole_rows_of_a_set_that_is_cut_elsewhere_come_with_a_warning(
    model_dir: Path, tmp_path: Path
) -> None:
    write_source(tmp_path / "sources", "essays", essays(8))
    place = tmp_path / "rows.jsonl"
    said = {}
    for truncation in ("tail", "head", "middle"):
        spec = spec_over("essays", truncation=truncation, max_length=32)
        built = build_set(spec, tokenizer_dir=model_dir, sets_dir=tmp_path / "sets")
        said[truncation] = write_rows(built, "jsonl", place, tmp_path / "sources")
        assert write_rows(built, "parquet", place, tmp_path / "sources") == []
    assert said["tail"] == []
    assert f"{built.rows} rows of the set cut at the middle" in said["middle"][0]
    assert "cut at the head" in said["head"][0]


def test_rows_of_a_source_that_is_gone_keep_their_text(built: BuiltSet, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "sources" / "talks")
    place = tmp_path / "rows.jsonl"
    (warning,) = write_rows(built, "jsonl", place, tmp_path / "sources")
    assert "talks" in warning
    rows = [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines()]
    (talk,) = [row for row in rows if row["slice"] == "talks"]
    assert talk["messages"] is None
    assert "42" in talk["text"]


def test_a_format_that_is_not_there(built: BuiltSet, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no format 'csv' for rows: give jsonl or parquet"):
        write_rows(built, "csv", tmp_path / "rows.csv", tmp_path / "sources")
    assert not (tmp_path / "rows.csv").exists()

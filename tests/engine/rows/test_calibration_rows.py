"""Rows come from a built set or a JSONL, and bad ones are named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.errors import CompositionRefused, ModelRefused, NotFound
from tests.engine.tiny_models import tiny_tokenizer
from workers.engine.rows.calibration_rows import CalibrationRows, ModelLimits, read_rows

LIMITS = ModelLimits(vocabulary=320, positions=64)


def read(file: Path) -> CalibrationRows:
    return read_rows(file, tiny_tokenizer(), LIMITS)


def write(file: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def built_set(directory: Path, ids: list[list[int]]) -> Path:
    directory.mkdir()
    count = len(ids)
    table = pa.table(
        {
            "row_id": [f"r{at}" for at in range(count)],
            "domain": ["code"] * count,
            "spoken_language": pa.array([None] * count, pa.string()),
            "input_ids": pa.array(ids, pa.list_(pa.int32())),
        }
    )
    pq.write_table(table, directory / "rows.parquet")
    (directory / "manifest.json").write_text(json.dumps({"id": "abc"}), encoding="utf-8")
    return directory


def test_text_and_messages_are_tokenized_with_the_models_own(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    found = read(
        write(tmp_path / "a.jsonl", {"text": "hello", "domain": "law"}, {"messages": turns})
    )
    decode = tiny_tokenizer().decode
    assert decode(found.rows[0].input_ids) == "hello"
    assert decode(found.rows[1].input_ids) == "<|user|>hi<|end|><|assistant|>yes<|end|>"
    assert [row.facets for row in found.rows] == [{"domain": "law"}, {}]
    assert found.tokens == 5 + 2 + 3 + 4


def test_a_long_row_is_cut_to_the_models_positions(tmp_path: Path) -> None:
    assert len(read(write(tmp_path / "a.jsonl", {"text": "x" * 100})).rows[0].input_ids) == 64


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{not json", "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is not JSON"),
        ({"text": "half \ud800"}, "line 2 has half of a surrogate pair"),
        ({"messages": [{"role": "user", "content": "\udc00"}]}, "line 2 has half of a surrogate"),
        ([1], "line 2 is not an object"),
        ({"prompt": "x"}, "line 2 has neither"),
        ({"messages": []}, "line 2 has neither"),
        ({"messages": [{"role": "user"}]}, "line 2: every message"),
        ({"text": ""}, "line 2 has no tokens"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, row: object, words: str) -> None:
    file = write(tmp_path / "bad.jsonl", {"text": "fine"}, row)
    with pytest.raises(CompositionRefused, match=words) as refused:
        read(file)
    assert str(file) in refused.value.sentence


def test_a_packed_file_is_refused_with_what_would_be_right(tmp_path: Path) -> None:
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"text": "fine"}\n'))
    with pytest.raises(CompositionRefused, match="not packed: one object a line"):
        read(packed)


def test_messages_need_a_chat_template(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    file = write(tmp_path / "a.jsonl", {"messages": [{"role": "user", "content": "hi"}]})
    with pytest.raises(ModelRefused, match="no chat template"):
        read_rows(file, tokenizer, LIMITS)


def test_a_built_set_is_read_without_a_tokenizer(tmp_path: Path) -> None:
    found = read_rows(built_set(tmp_path / "set", [[1, 2], [3]]), None, LIMITS)
    assert found.id == "abc"
    assert [row.input_ids.tolist() for row in found.rows] == [[1, 2], [3]]
    assert found.rows[0].facets == {"domain": "code"}


def test_ids_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="token id 320"):
        read_rows(built_set(tmp_path / "set", [[1, 320]]), None, LIMITS)


def test_lines_longer_than_the_model_are_cut_and_counted(tmp_path: Path) -> None:
    found = read(write(tmp_path / "a.jsonl", {"text": "x" * 65}, {"text": "x" * 64}))
    assert [len(row.input_ids) for row in found.rows] == [64, 64]
    assert found.cut == 1
    assert "1 of 2 rows are longer" in str(found.concern)
    assert read(write(tmp_path / "b.jsonl", {"text": "x" * 64})).concern is None


def test_rows_longer_than_the_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="64 positions"):
        read_rows(built_set(tmp_path / "set", [[1] * 65]), None, LIMITS)


def test_what_is_not_there_or_not_a_set(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read(tmp_path / "nothing")
    with pytest.raises(CompositionRefused, match=r"no manifest\.json"):
        read(tmp_path)
    with pytest.raises(CompositionRefused, match="has no rows"):
        read(write(tmp_path / "empty.jsonl", ""))
    broken = built_set(tmp_path / "broken", [[1]])
    (broken / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(CompositionRefused, match="cannot be read"):
        read(broken)

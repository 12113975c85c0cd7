"""Files of every kind, packed and not, good and broken."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import Refused
from app.row_files import raw_rows as module
from app.row_files.file_kinds import kind_of, safe_name
from app.row_files.raw_rows import PASSAGE, batch_rows, raw_rows
from app.row_files.unpacking import LONGEST_LINE, Limits

ROWS = [
    {"prompt": "What is 2 + 2?", "answer": "4"},
    {"prompt": "Größer als π — «да»", "answer": "line one\nline two, with a comma"},
    {"prompt": 'say "hi"', "answer": "日本語"},
]


def content_of(kind: str) -> bytes:
    match kind:
        case "jsonl" | "ndjson":
            return "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode()
        case "json":
            return json.dumps(ROWS, indent=1).encode()
        case "csv" | "tsv":
            text = io.StringIO()
            writer = csv.DictWriter(text, ROWS[0], delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(ROWS)
            return text.getvalue().encode()
        case _:
            sink = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(ROWS), sink)
            return sink.getvalue()


def pack(content: bytes, how: str) -> bytes:
    if how == "gz":
        return gzip.compress(content, mtime=0)  # the time it is packed at would name the test
    if how == "zst":
        return pa.Codec("zstd").compress(content, asbytes=True)
    return content


def read(
    tmp_path: Path, name: str, content: bytes, encoding: str = "utf-8", limits: Limits | None = None
) -> list[Any]:
    file = tmp_path / "given"
    file.write_bytes(content)
    return list(raw_rows(file, name, encoding, limits or Limits()))


def refusal(*given: Any, **more: Any) -> str:
    with pytest.raises(Refused) as refused:
        read(*given, **more)
    return refused.value.sentence


@pytest.mark.parametrize("packing", ["", "gz", "zst"])
@pytest.mark.parametrize("kind", ["jsonl", "ndjson", "json", "csv", "tsv", "parquet"])
def test_every_kind_is_read_packed_or_not(tmp_path: Path, kind: str, packing: str) -> None:
    name = ".".join(filter(None, ["rows", kind, packing]))
    rows = read(tmp_path, name, pack(content_of(kind), packing))
    assert [row.cells for row in rows] == ROWS
    assert [row.number for row in rows] == [1, 2, 3]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_encodings(tmp_path: Path, kind: str, encoding: str) -> None:
    words = "Größe: 12 µm"
    text = {
        "jsonl": json.dumps({"text": words}, ensure_ascii=False) + "\n",
        "json": json.dumps([{"text": words}], ensure_ascii=False),
        "csv": f"text\n{words}\n",
    }[kind]
    rows = read(tmp_path, f"rows.{kind}", text.encode(encoding), encoding)
    assert [row.cells for row in rows] == [{"text": words}]


def test_a_byte_order_mark_tells_the_encoding(tmp_path: Path) -> None:
    assert read(tmp_path, "a.csv", "\ufefftext\nä\n".encode())[0].cells == {"text": "ä"}
    assert read(tmp_path, "a.jsonl", '{"text": "ä"}'.encode("utf-16"))[0].cells == {"text": "ä"}


def test_a_wrong_encoding_names_file_line_and_byte(tmp_path: Path) -> None:
    rows = read(tmp_path, "a.jsonl", b'{"text": "a"}\n{"text": "gr\xf6n"}\n{"text": "b"}\n')
    assert [row.cells and row.cells["text"] for row in rows] == ["a", None, "b"]
    assert "line 2: byte 13 (0xF6) is not UTF-8" in rows[1].problem
    said = refusal(tmp_path, "people.csv", b"text\na\ngr\xf6n\n")
    assert said.startswith("people.csv, line 3: byte 3 (0xF6) is not UTF-8: save the file as")
    assert "about byte 14 (0xF6)" in refusal(tmp_path, "a.json", b'[{"text": "gr\xf6n"}]')
    assert "no text encoding 'utf-9'" in refusal(tmp_path, "a.csv", b"a\n", encoding="utf-9")


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl", "a.txt"])
def test_an_encoding_that_wants_a_mark_says_so(tmp_path: Path, name: str) -> None:
    said = refusal(tmp_path, name, b'[{"text": "words"}]\n', encoding="utf-16")
    assert said == f"{name} is not UTF-16: UTF-16 stream does not start with BOM."


def test_one_broken_line_does_not_stop_the_others(tmp_path: Path) -> None:
    content = b'{"a": 1}\n\n{"a": \n[1]\n{"a": 2}\n' + b"[" * 100_000 + b"\n"
    rows = read(tmp_path, "a.jsonl", content)
    assert [row.cells for row in rows] == [{"a": 1}, None, None, {"a": 2}, None]
    assert [row.number for row in rows] == [1, 2, 3, 4, 5]
    assert rows[1].problem.startswith("line 3 is not JSON: Expecting value")
    assert rows[2].problem == "line 4 is no object with columns but list"
    assert rows[4].problem == "line 6 is nested too deeply"


def test_a_line_without_an_end_is_left_out(tmp_path: Path) -> None:
    long = b'{"a": "' + b"x" * LONGEST_LINE + b'"}'
    rows = read(tmp_path, "a.jsonl", b'{"a": 1}\n' + long + b'\n{"a": 2}\n')
    assert [row.cells for row in rows] == [{"a": 1}, None, {"a": 2}]
    assert rows[1].problem == "line 2: it is longer than 16,000,000 bytes"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'[{"a": 1},\n {"a": }]', "a.json, line 2, column 8: Expecting value"),
        (b'[{"a": 1} {"a": 2}]', "a.json, line 1, column 11: a comma or ] was expected"),
        (b'[{"a": 1}', "a.json, line 1, column 10: a comma or ] was expected"),
        (b'[{"a": 1}] x', "something stands after the list"),
        (b'"words"', "a list of rows was expected"),
        (b"", "a list of rows was expected"),
        (b'{"a": 1}', "one object without a list"),
        (b"[" * 200_000, "nested too deeply"),
    ],
)
def test_a_broken_document_names_line_and_column(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refusal(tmp_path, "a.json", content)


def test_a_document_may_be_an_object_with_the_rows_or_lines(tmp_path: Path) -> None:
    inside = read(tmp_path, "a.json", json.dumps({"version": 1, "data": ROWS}).encode())
    assert [row.cells for row in inside] == ROWS
    assert [row.cells for row in read(tmp_path, "a.json", content_of("jsonl"))] == ROWS
    one = {"messages": [{"role": "user", "content": "Hi"}]}
    assert [row.cells for row in read(tmp_path, "a.json", json.dumps(one).encode())] == [one]


@given(st.lists(st.dictionaries(st.text(max_size=4), st.integers() | st.text(), max_size=3)))
@settings(deadline=None, max_examples=60)
def test_a_document_is_read_as_the_json_module_reads_it(tmp_path_factory: Any, rows: Any) -> None:
    folder = tmp_path_factory.mktemp("json")
    for indent in (None, 1):
        content = json.dumps(rows, indent=indent, ensure_ascii=bool(indent)).encode(
            "utf-8", "replace"
        )
        expected = json.loads(content)
        assert [row.cells for row in read(folder, "a.json", content)] == expected


def test_a_document_larger_than_what_is_read_at_once(tmp_path: Path) -> None:
    rows = [{"text": "x" * (i * 997 % 50_000), "n": i} for i in range(200)]
    made = read(tmp_path, "a.json", json.dumps(rows).encode())
    assert [row.cells for row in made] == rows


@pytest.mark.parametrize("name", ["bomb.jsonl.gz", "bomb.jsonl.zst", "bomb.parquet.gz"])
def test_what_unpacks_to_too_much_is_refused(tmp_path: Path, name: str) -> None:
    packed = pack(b'{"a": 1}\n' * 3_000_000, name.rpartition(".")[2])
    assert len(packed) < 100_000
    said = refusal(tmp_path, name, packed, limits=Limits(unpacked=1_000_000))
    assert "unpacks to more than 1,000,000 bytes" in said


def test_a_parquet_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    sink = io.BytesIO()
    table = pa.table({"text": ["x" * 1_000_000] * 50})
    pq.write_table(table, sink, compression="zstd", use_dictionary=False)
    assert len(sink.getvalue()) < 200_000
    said = refusal(tmp_path, "a.parquet", sink.getvalue(), limits=Limits(unpacked=1_000_000))
    assert "unpacks to more than" in said


def test_a_huge_value_that_every_row_names_is_unpacked_for_few_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", 20_000_000)
    size, count = 6_000_000, 20
    values = pa.array(["x" * size], pa.large_string())
    column = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), values)
    file = tmp_path / "a.parquet"
    with pq.ParquetWriter(file, pa.schema([("text", column.type)]), compression="zstd") as writer:
        writer.write_table(pa.table({"text": column}))
    assert file.stat().st_size < 100_000
    assert batch_rows(pq.read_metadata(file)) == 3
    rows = list(raw_rows(file, "a.parquet", "utf-8", Limits()))
    assert [len(row.cells["text"]) for row in rows] == [size] * count


PACKED = gzip.compress(b'{"a": 1}', mtime=0)
CUT = gzip.compress(content_of("jsonl") * 50, mtime=0)[:-40]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.jsonl.gz",
            gzip.compress(content_of("jsonl") * 50, mtime=0)[:-40],
            "damaged or cut off",
        ),
        ("a.jsonl.gz", b'{"a": 1}', "not packed by its first bytes and gzip by its name"),
        ("a.jsonl", PACKED, "gzip by its first bytes and not packed by its"),
        ("a.csv", content_of("parquet"), "is Parquet by its first bytes"),
        ("a.parquet", b"a,b\n1,2\n", "is no Parquet by its first bytes"),
        ("a.parquet", content_of("parquet")[:100], "cannot be read as Parquet"),
        ("a.csv", b"a,,c\n1,2,3\n", "line 1: a column has no name"),
        ("a.csv", b"a,b,a\n1,2,3\n", "line 1: two columns are called 'a'"),
        ("a.csv", b"", "a.csv is empty"),
        ("a.csv", b"\n1,2\n", "line 1: a column has no name"),
        ("a.csv", b"a\rb\n1\n", "a.csv, line 1: new-line character seen in unquoted field."),
        ("a.csv", b"a,b\n1,2\n3\r4,5\n", "a.csv, line 3: new-line character seen in unquoted"),
        ("a.exe", b"MZ", "of no kind that can be read: give JSONL, JSON, CSV"),
        ("README", b"x", "of no kind that can be read"),
    ],
)
def test_a_file_that_is_not_what_it_says(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    assert said in refusal(tmp_path, name, content)


def test_a_table_with_other_separators_and_uneven_rows(tmp_path: Path) -> None:
    rows = read(tmp_path, "a.csv", b"a;b\n1;2\n3\n\n4;5;6\n7;8\n")
    assert [row.cells for row in rows] == [{"a": "1", "b": "2"}, None, None, {"a": "7", "b": "8"}]
    assert rows[1].problem == "it has 1 cells; the header has 2"


def test_a_cell_and_a_column_may_have_line_breaks(tmp_path: Path) -> None:
    rows = read(tmp_path, "a.csv", b'a,"b\nc"\n1,"x\ny"\n')
    assert [row.cells for row in rows] == [{"a": "1", "b\nc": "x\ny"}]


def test_plain_text_is_put_together_of_whole_paragraphs(tmp_path: Path) -> None:
    paragraphs = [f"{i} " + "word " * 300 for i in range(20)]
    rows = read(tmp_path, "a.txt", "\n\n".join(paragraphs).encode())
    texts = [row.cells["text"] for row in rows]
    assert all(len(text) <= PASSAGE for text in texts)
    assert "\n\n".join(texts) == "\n\n".join(paragraphs)


def test_source_code_carries_its_language(tmp_path: Path) -> None:
    rows = read(tmp_path, "main.rs.gz", gzip.compress(b"fn main() {}\n"))
    assert [row.cells for row in rows] == [{"text": "fn main() {}", "programming_language": "Rust"}]
    assert kind_of("lib.PY").programming_language == "Python"


@pytest.mark.parametrize("name", ["../a.csv", "a/b.csv", "..\\a.csv", "", ".a", "a\n.csv", "C:a"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(Refused, match="cannot be a file's name here"):
        safe_name(name)


@given(st.binary(max_size=300), st.sampled_from(["a.jsonl", "a.json", "a.csv", "a.txt", "a.parquet",
       "a.csv.gz", "a.jsonl.zst"]))  # fmt: skip
@settings(deadline=None, max_examples=150)
def test_any_bytes_are_rows_or_a_sentence(tmp_path_factory: Any, content: bytes, name: str) -> None:
    file = tmp_path_factory.mktemp("fuzz") / "given"
    file.write_bytes(content)
    try:
        rows = list(raw_rows(file, name, "utf-8", Limits()))
    except Refused as refused:
        said, rows = refused.sentence, []
        assert said.endswith(".")
    assert all((row.cells is None) == (row.problem is not None) for row in rows)

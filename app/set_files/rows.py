"""The rendered rows of a built set as files that other tools read as they are.

``parquet`` carries the very tokens (``input_ids``, ``attention_mask``): llmcompressor and
``datasets`` take a set with ``input_ids`` as it is. Its other columns are texts, which collators
leave out. ``jsonl`` carries ``messages`` and ``text`` for tools that render or tokenize by
themselves. ``text`` is the whole row; what is past the maximum length is cut by whoever tokenizes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from app.artifacts import new_file
from app.calibration.built_set import BuiltSet
from app.calibration.prompting import Assigned
from app.calibration.spec import SetSpec
from app.errors import CompositionRefused, Refused
from app.facets import Facet
from app.formatting import counted
from app.rendering.chat_template import Message
from app.rendering.conversation import with_reasoning
from app.sources.rows import find_rows, messages_of, pinned_file

BATCH_ROWS = 2_000
TEXTS = ("row_id", "source", "slice", "license", *(facet.value for facet in Facet))
FORMATS = ("jsonl", "parquet")
SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("attention_mask", pa.list_(pa.int8())),
        ("messages", pa.string()),
        ("text", pa.string()),
        *((name, pa.string()) for name in TEXTS),
    ]
)
READ = ("text", "input_ids", "named_value", *TEXTS)

Conversations = Callable[[list[dict[str, Any]]], list[list[dict[str, Any]] | None]]


def write_rows(built: BuiltSet, form: str, place: Path, sources_dir: Path) -> list[str]:
    """Write a built set's rows to ``place``, beside it first, and give what is to be known of it.

    ``messages`` are the conversations that were rendered, prompts in them, reasoning where the set
    has it; null where a source that the set was built of is not here any more. Raises DiskFull,
    Refused for another format.
    """
    if form not in FORMATS:
        raise Refused(f"There is no format {form!r} for rows: give {' or '.join(FORMATS)}.")
    warnings = list(_cut_elsewhere(built)) if form == "jsonl" else []
    with new_file(place) as draft:
        batches = _with_messages(built, sources_dir, warnings)
        (_write_jsonl if form == "jsonl" else _write_parquet)(batches, draft)
    return warnings


def jsonl_lines(built: BuiltSet, sources_dir: Path) -> Iterator[str]:
    """The rows as JSON, one a line, for a stream."""
    for batch in _with_messages(built, sources_dir, []):
        yield "".join(_line(row) for row in batch)


def _write_jsonl(batches: Iterator[list[dict[str, Any]]], place: Path) -> None:
    with place.open("w", encoding="utf-8", newline="\n") as stream:
        for batch in batches:
            stream.writelines(_line(row) for row in batch)


def _cut_elsewhere(built: BuiltSet) -> Iterator[str]:
    """What is to be known of whole rows that are not cut at their tail here."""
    truncation = built.identity["spec"]["truncation"]
    cut = sum(part.cut_rows for part in built.report.slices)
    if cut and truncation != "tail":
        yield (
            f"The rows are whole here, and {counted(cut, 'row')} of the set cut at the "
            f"{truncation}: other tools cut the tail. Take parquet for the set's own tokens."
        )


def _line(row: dict[str, Any]) -> str:
    document = {name: row[name] for name in ("messages", "text", *TEXTS)}
    return json.dumps(document, ensure_ascii=False) + "\n"


def _write_parquet(batches: Iterator[list[dict[str, Any]]], place: Path) -> None:
    with pq.ParquetWriter(place, SCHEMA, compression="zstd") as writer:
        for batch in batches:
            rows = [
                {
                    **row,
                    "attention_mask": [1] * len(row["input_ids"]),
                    "messages": json.dumps(row["messages"], ensure_ascii=False),
                }
                for row in batch
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))


def _with_messages(
    built: BuiltSet, sources_dir: Path, warnings: list[str]
) -> Iterator[list[dict[str, Any]]]:
    """The rows in the order they are fed, a batch at a time, each with its conversation."""
    conversations = _conversations(built, sources_dir, warnings)
    with pq.ParquetFile(built.rows_file) as parquet:
        for batch in parquet.iter_batches(BATCH_ROWS, columns=list(READ)):
            rows = batch.to_pylist()
            for row, messages in zip(rows, conversations(rows), strict=True):
                row["messages"] = messages
            yield rows


def _conversations(built: BuiltSet, sources_dir: Path, warnings: list[str]) -> Conversations:
    """What gives the conversations of a batch of built rows."""
    spec = SetSpec.model_validate(built.identity["spec"])
    prompts = {part.name: part.prompt for part in spec.slices}
    files = []
    for source in built.identity["sources"]:
        try:
            files.append(pinned_file(source["name"], source["revision"], sources_dir))
        except CompositionRefused as refused:
            warnings.append(f"Rows of {source['name']} have no messages: {refused.sentence}")

    def of_batch(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]] | None]:
        found = find_rows(files, [row["row_id"] for row in rows])
        made: list[list[dict[str, Any]] | None] = []
        for row in rows:
            original = found.get(row["row_id"])
            if original is None:
                made.append(None)
                continue
            messages: list[Message] = [*messages_of(original)]
            if prompt := prompts.get(row["slice"]):
                messages = Assigned(prompt, row["named_value"]).before(original, messages)
            if spec.reasoning != "native":
                messages = with_reasoning(messages, spec.reasoning)
            made.append([dict(message) for message in messages])
        return made

    return of_batch

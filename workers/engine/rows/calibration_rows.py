"""The rows a step runs on: read from a built set, or from a JSONL file.

A built set is a directory with ``rows.parquet`` and ``manifest.json`` (see
``app.calibration.building``); its rows are tokenized already. A JSONL file has one row a line,
``{"text": ...}`` or ``{"messages": [...]}``, tokenized here with the model's own tokenizer.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from app.errors import CompositionRefused, ModelRefused, NotFound

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FACET_COLUMNS = ("spoken_language", "programming_language", "domain", "source", "slice")
ONE_A_LINE = "A file of rows is JSONL in UTF-8, not packed: one object a line."


@dataclass(frozen=True)
class CalibrationRow:
    """One row: its id, its tokens (int32, one dimension), the value of each facet it has, and
    the sequence it is packed into with its neighbours (None: it is not)."""

    row_id: str
    input_ids: np.ndarray
    facets: dict[str, str]
    sequence: int | None = None


@dataclass(frozen=True)
class CalibrationRows:
    """The rows of a set in their order, and the id of the set; ``cut`` of them were longer than
    the model's positions."""

    id: str
    rows: tuple[CalibrationRow, ...]
    cut: int = 0

    @property
    def tokens(self) -> int:
        """How many tokens all rows have together."""
        return sum(len(row.input_ids) for row in self.rows)

    @property
    def concern(self) -> str | None:
        """What is to be said of rows that were cut; None where none was."""
        if not self.cut:
            return None
        return (
            f"{self.cut:,} of {len(self.rows):,} rows are longer than the model's positions: what "
            "is past them is left out."
        )


@dataclass(frozen=True)
class ModelLimits:
    """What token ids and row lengths a model can take."""

    vocabulary: int
    positions: int


def read_rows(
    path: Path, tokenizer: PreTrainedTokenizerBase | None, limits: ModelLimits
) -> CalibrationRows:
    """The rows of a built set (a directory) or of a JSONL file.

    JSONL rows are cut at the tail to the model's positions. Raises NotFound when nothing is at
    ``path``, CompositionRefused for a set that cannot be read or has no rows, ModelRefused when
    token ids or lengths do not fit the model.
    """
    if path.is_dir():
        found = _read_built_set(path)
    elif path.is_file():
        if tokenizer is None:
            raise ModelRefused(f"{path} holds text, and no tokenizer was given to read it with.")
        found = _read_jsonl(path, tokenizer, limits.positions)
    else:
        raise NotFound(
            f"There is no calibration set at {path}: give the directory that calibrant sets build "
            "names, or a JSONL file."
        )
    if not found.rows:
        raise CompositionRefused(f"The calibration set at {path} has no rows.")
    _check_fits(found, limits)
    return found


def _read_built_set(directory: Path) -> CalibrationRows:
    manifest, table_file = directory / "manifest.json", directory / "rows.parquet"
    for needed in (manifest, table_file):
        if not needed.is_file():
            raise CompositionRefused(f"{directory} is not a built set: it has no {needed.name}.")
    try:
        set_id = str(json.loads(manifest.read_text(encoding="utf-8"))["id"])
        table = pq.read_table(table_file)
        wanted = ("row_id", "input_ids", "sequence", *FACET_COLUMNS)
        columns = {
            name: table.column(name).to_pylist() for name in wanted if name in table.column_names
        }
        ids = [np.asarray(tokens, dtype=np.int32) for tokens in columns["input_ids"]]
        row_ids = [str(row_id) for row_id in columns["row_id"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CompositionRefused(f"{directory} cannot be read as a built set: {error}.") from error
    present = [name for name in FACET_COLUMNS if name in columns]
    facets = [
        {name: str(columns[name][at]) for name in present if columns[name][at]}
        for at in range(len(ids))
    ]
    sequences = columns.get("sequence", [None] * len(ids))
    rows = zip(row_ids, ids, facets, sequences, strict=True)
    return CalibrationRows(set_id, tuple(CalibrationRow(*row) for row in rows if len(row[1])))


def _read_jsonl(file: Path, tokenizer: PreTrainedTokenizerBase, max_length: int) -> CalibrationRows:
    data = file.read_bytes()
    rows, cut = [], 0
    for number, line in enumerate(data.splitlines(), start=1):
        if line.strip():
            row = _row_of_line(line, f"{file} line {number}", tokenizer)
            cut += len(row.input_ids) > max_length
            rows.append(replace(row, input_ids=row.input_ids[:max_length]))
    return CalibrationRows(hashlib.sha256(data).hexdigest(), tuple(rows), cut)


def _row_of_line(line: bytes, where: str, tokenizer: PreTrainedTokenizerBase) -> CalibrationRow:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CompositionRefused(f"{where} is not JSON ({error}). {ONE_A_LINE}") from error
    if not isinstance(row, dict):
        raise CompositionRefused(
            f"{where} is not an object with 'text' or 'messages'. {ONE_A_LINE}"
        )
    ids = _token_ids(row, where, tokenizer)
    if not ids:
        raise CompositionRefused(f"{where} has no tokens.")
    facets = {name: row[name] for name in FACET_COLUMNS if isinstance(row.get(name), str)}
    row_id = str(row.get("row_id") or row.get("id") or hashlib.sha256(line).hexdigest()[:16])
    return CalibrationRow(row_id, np.asarray(ids, dtype=np.int32), facets)


def _token_ids(row: dict[str, Any], where: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    text, messages = row.get("text"), row.get("messages")
    if isinstance(text, str):
        return list(tokenizer(_whole(text, where))["input_ids"])
    if not isinstance(messages, list) or not messages:
        raise CompositionRefused(f"{where} has neither a 'text' nor a list of 'messages'.")
    if not tokenizer.chat_template:
        raise ModelRefused(f"{where} has messages, and the model's tokenizer has no chat template.")
    for turn in messages:
        if not isinstance(turn, dict) or not {"role", "content"} <= turn.keys():
            raise CompositionRefused(f"{where}: every message needs a 'role' and a 'content'.")
    try:
        rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception as error:  # templates are programs of the model's author
        raise CompositionRefused(f"{where}: the chat template refuses it: {error}.") from error
    whole = _whole(str(rendered), where)
    return list(tokenizer(whole, add_special_tokens=False)["input_ids"])


def _whole(text: str, where: str) -> str:
    """The text, which a tokenizer can read. Raises CompositionRefused."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CompositionRefused(
            f"{where} has half of a surrogate pair, which UTF-8 cannot write."
        ) from error
    return text


def _check_fits(found: CalibrationRows, limits: ModelLimits) -> None:
    for row in found.rows:
        highest, lowest = int(row.input_ids.max()), int(row.input_ids.min())
        if highest >= limits.vocabulary or lowest < 0:
            wrong = highest if highest >= limits.vocabulary else lowest
            raise ModelRefused(
                f"Row {row.row_id} has token id {wrong}, and the model knows ids 0 to "
                f"{limits.vocabulary - 1}: its tokenizer is another model's. Put the model's own "
                "beside its config.json, and build the set with it."
            )
        if len(row.input_ids) > limits.positions:
            raise ModelRefused(
                f"Row {row.row_id} has {len(row.input_ids):,} tokens, and the model has "
                f"{limits.positions:,} positions: build the set with a smaller maximum length."
            )
    packed: Counter[int] = Counter()
    for row in found.rows:
        if row.sequence is not None:
            packed[row.sequence] += len(row.input_ids)
    longest = max(packed.values(), default=0)
    if longest > limits.positions:
        raise ModelRefused(
            f"Rows are packed into sequences of up to {longest:,} tokens, and the model has "
            f"{limits.positions:,} positions: build the set with a smaller maximum length."
        )

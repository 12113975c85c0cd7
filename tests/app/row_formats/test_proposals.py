"""Which formatter the first rows ask for."""

from __future__ import annotations

from typing import Any

import pytest

from app.facets import Facet
from app.row_formats.proposals import propose

TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
SHARED = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
CALLS = '[{"name": "f", "arguments": {}}]'


@pytest.mark.parametrize(
    ("row", "formatter", "columns"),
    [
        ({"id": 1, "messages": TURNS}, "chat_completion", ("messages",)),
        ({"conversations": SHARED}, "sharegpt", ("conversations",)),
        ({"system": "s", "conversations": SHARED}, "chat_completion_with_sysprompt",
         ("system", "conversations")),
        ({"Instruction": "a", "Response": "b"}, "prompt_answer", ("Instruction", "Response")),
        ({"question": "a", "reasoning": "r", "answer": "b"}, "reasoning_answer",
         ("question", "reasoning", "answer")),
        ({"instruction": "a", "input": "", "output": "b"}, "alpaca",
         ("instruction", "input", "output")),
        ({"query": "q", "answers": CALLS, "tools": "[]"}, "tool_calls", ("query", "answers")),
        ({"description": "d", "solutions": {"language": [2], "solution": ["x"]}},
         "deepmind_code_contests", ("description",)),
        ({"number": 1, "body": "words"}, "raw_text", ("body",)),
        ({"odd": "words"}, "raw_text", ("odd",)),
    ],
)  # fmt: skip
def test_columns_tell_the_formatter(
    row: dict[str, Any], formatter: str, columns: tuple[str, ...]
) -> None:
    found = propose([row])
    assert found is not None
    assert (found.formatter, found.columns) == (formatter, columns)


def test_a_few_bad_rows_do_not_hide_the_format() -> None:
    rows = [{"prompt": "a", "answer": "b"}] * 10 + [{"prompt": "a", "answer": ""}] * 3
    found = propose(rows)
    assert found is not None
    assert (found.formatter, found.fits, found.looked_at) == ("prompt_answer", 10, 13)


@pytest.mark.parametrize(
    ("values", "facet"),
    [(["python", "Rust", "x"], Facet.PROGRAMMING_LANGUAGE), (["fr", "de"], Facet.SPOKEN_LANGUAGE)],
)
def test_a_language_column_labels_rows(values: list[str], facet: Facet) -> None:
    found = propose([{"text": "words", "language": value} for value in values])
    assert found is not None
    assert found.label_columns == {facet: "language"}


def test_rows_that_fit_nothing() -> None:
    assert propose([{"a": {}}, {}]) is None
    assert propose([]) is None

"""Which formatter a source's first rows ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from app.facet_names import known_value
from app.facets import Facet, vocabulary
from app.row_formats.formatters import format_row
from app.row_formats.turns import RowUnfit


class Proposal(BaseModel):
    """A formatter with its columns, and ``fits`` of the ``looked_at`` rows that fit it."""

    formatter: str
    columns: tuple[str, ...]
    label_columns: dict[Facet, str] = {}
    fits: int = 0
    looked_at: int = 0


_PROMPTS = ("prompt", "instruction", "question", "problem", "query", "input", "user")
_ANSWERS = (
    "response", "answer", "output", "completion", "generated_solution", "solution", "chosen",
    "assistant",
)  # fmt: skip
_REASONINGS = ("reasoning", "reasoning_content", "thinking", "thought", "chain_of_thought")
_TEXTS = ("text", "content", "code", "article", "body", "document", "passage")
_CHATS = ("messages", "conversations", "conversation", "dialogue", "turns", "chat", "chosen")
_LANGUAGE = frozenset({"lang", "language", "lang_code", "locale"})


def propose(rows: Sequence[Mapping[str, Any]], only: str | None = None) -> Proposal | None:
    """The most telling formatter that half of some rows fit, else the one that most do.

    With ``only`` its columns alone are looked for. None when no row fits.
    """
    names = _names(rows)
    best: Proposal | None = None
    for formatter, columns in _candidates(names, rows):
        if only is not None and formatter != only:
            continue
        fits = sum(_fits(formatter, columns, row) for row in rows)
        if fits and (best is None or fits > best.fits):
            best = Proposal(formatter=formatter, columns=columns, fits=fits, looked_at=len(rows))
        if 2 * fits >= len(rows) > 0:
            break
    return best and best.model_copy(update={"label_columns": label_columns(rows)})


def label_columns(rows: Sequence[Mapping[str, Any]]) -> dict[Facet, str]:
    """Columns of some rows called ``language`` or ``lang`` whose values a vocabulary knows."""
    found: dict[Facet, str] = {}
    for name in _names(rows):
        if name.lower() not in _LANGUAGE:
            continue
        values = [row[name] for row in rows if isinstance(row.get(name), str)]
        for facet in (Facet.PROGRAMMING_LANGUAGE, Facet.SPOKEN_LANGUAGE):
            known = sum(known_value(facet, value) in vocabulary(facet) for value in values)
            if values and known * 2 > len(values) and facet not in found:
                found[facet] = name
                break
    return found


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(str(name) for row in rows for name in row))


def _candidates(
    names: list[str], rows: Sequence[Mapping[str, Any]]
) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Formatters with columns by their names, the most telling first."""
    by_name = {name.lower(): name for name in reversed(names)}
    found = {key: _first(by_name, among) for key, among in _KNOWN.items()}
    if {"description", "solutions"} <= set(names):
        yield "deepmind_code_contests", ("description",)
    for chat in _present(by_name, _CHATS):
        formatter = "sharegpt" if _says_from(rows, chat) else "chat_completion"
        if "system" in by_name:
            yield "chat_completion_with_sysprompt", (by_name["system"], chat)
        yield formatter, (chat,)
    if {"query", "answers"} <= by_name.keys():
        results = (by_name["results"],) if "results" in by_name else ()
        yield "tool_calls", (by_name["query"], by_name["answers"], *results)
    if {"instruction", "input", "output"} <= by_name.keys():
        yield "alpaca", (by_name["instruction"], by_name["input"], by_name["output"])
    prompt, answer, thought = found["prompt"], found["answer"], found["reasoning"]
    if prompt and answer and thought:
        yield "reasoning_answer", (prompt, thought, answer)
    if prompt and answer:
        yield "prompt_answer", (prompt, answer)
    for column in (*_present(by_name, _TEXTS), *names):
        yield "raw_text", (column,)


_KNOWN = {"prompt": _PROMPTS, "answer": _ANSWERS, "reasoning": _REASONINGS}


def _present(by_name: Mapping[str, str], among: Iterable[str]) -> list[str]:
    return [by_name[name] for name in among if name in by_name]


def _first(by_name: Mapping[str, str], among: Iterable[str]) -> str | None:
    return next(iter(_present(by_name, among)), None)


def _says_from(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    for row in rows:
        turns = row.get(column)
        if isinstance(turns, list) and turns and isinstance(turns[0], Mapping):
            return "from" in turns[0]
    return False


def _fits(formatter: str, columns: tuple[str, ...], row: Mapping[str, Any]) -> bool:
    try:
        format_row(formatter, columns, {}, row)
    except RowUnfit:
        return False
    return True

"""From the columns of a data set to a conversation: one pure function a format, one table.

The names are those of the quantizers YAML (``calibrate_software_engineer.yaml``) where it has
them; here no turn changes its speaker and no row stops the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.errors import Refused
from app.facets import Facet
from app.nearest import nearest
from app.row_formats.turns import Message, Placing, RowUnfit, calls, parsed, turn, words

# A row longer than this is a dump, not a passage: no model reads it whole.
LONGEST_ROW = 1_000_000

Cells = Sequence[Any]
Params = Mapping[str, Any]


@dataclass(frozen=True)
class Formatted:
    """A row that fits: its conversation (None for plain text), all its words, and labels that its
    content gives away."""

    messages: list[Message] | None
    text: str
    facets: Mapping[Facet, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Formatter:
    """A format: ``columns`` in words, how many of them it takes, how data sets of this format
    mostly call them, and the values each of its parameters may have (empty: any text)."""

    title: str
    columns: str
    least: int
    most: int
    usual: tuple[str, ...]
    convert: Callable[[Cells, Params], Formatted]
    params: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reads: tuple[str, ...] = ()


def format_row(
    formatter: str, columns: Sequence[str], params: Params, row: Mapping[str, Any]
) -> Formatted:
    """A row of a data set as a conversation. Raises RowUnfit with the reason."""
    rule = FORMATTERS[formatter]
    read = rule.reads or columns
    for column in read:
        if column not in row:
            hint = nearest(column, [str(name) for name in row])
            raise RowUnfit(f"it has no column {column!r}{hint}")
    made = rule.convert([row[column] for column in read], params)
    if not made.text.strip():
        raise RowUnfit("it is empty")
    if len(made.text) > LONGEST_ROW:
        raise RowUnfit(f"it has {len(made.text):,} characters; {LONGEST_ROW:,} are the most")
    return made


def require_formatter(formatter: str, columns: Sequence[str], params: Params) -> None:
    """Refuse a formatter that does not exist, or that does not take these columns or parameters.

    Raises Refused with the nearest name.
    """
    rule = known_formatter(formatter)
    if not rule.least <= len(columns) <= rule.most:
        raise Refused(
            f"Formatter {formatter!r} takes {rule.columns}: "
            f"{len(columns)} given ({', '.join(columns) or 'none'})."
        )
    for name, value in params.items():
        if name not in rule.params:
            hint = nearest(name, rule.params)
            raise Refused(f"Formatter {formatter!r} has no parameter {name!r}{hint}.")
        allowed = rule.params[name]
        if not isinstance(value, str) or (allowed and value not in allowed):
            said = " or ".join(allowed) or "text"
            raise Refused(f"Parameter {name!r} of formatter {formatter!r} is {said}.")
        if "{{" in value or "{%" in value:
            raise Refused(
                f"Parameter {name!r} is a template: it is put before each row as a slice's prompt, "
                "where its values are dealt evenly; here only fixed words can stand."
            )


def known_formatter(name: str) -> Formatter:
    """A formatter by its name. Raises Refused with the nearest name."""
    if name not in FORMATTERS:
        known = ", ".join(FORMATTERS)
        hint = nearest(name, FORMATTERS)
        raise Refused(f"There is no formatter {name!r}{hint}; there are: {known}.")
    return FORMATTERS[name]


def conversation(given: Any, params: Params, where: str) -> list[Message]:
    """A list of turns as messages. Raises RowUnfit for an unknown role, an empty turn, a
    conversation in which nobody asks."""
    turns = parsed(given, where) if isinstance(given, str) else given
    if isinstance(turns, Mapping) and isinstance(turns.get("messages"), list):
        turns = turns["messages"]
    if isinstance(turns, Mapping):
        turns = _rows_of(turns)
    if not isinstance(turns, list):
        raise RowUnfit(f"{where} is not a list of turns")
    reasoning: Placing = params.get("reasoning", "native")
    tool_calls: Placing = params.get("tool_calls", "native")
    messages = [
        message
        for number, one in enumerate(turns, start=1)
        for message in turn(one, number, reasoning, tool_calls)
    ]
    return list(_without_empty(messages))


def _rows_of(columns: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """A table of equally long columns (how ``datasets`` gives a Sequence of records) as records;
    None for what is no such table."""
    lists = [value for value in columns.values() if isinstance(value, list)]
    if not lists or len(lists) != len(columns) or len({len(one) for one in lists}) > 1:
        return None
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*lists, strict=True)]


def _without_empty(messages: list[Message]) -> Iterator[Message]:
    """The messages but for an empty system prompt. Raises RowUnfit."""
    for number, message in enumerate(messages, start=1):
        if message["content"].strip() or message.get("tool_calls") or message["role"] == "tool":
            yield message
        elif message["role"] != "system":
            raise RowUnfit(f"turn {number} ({message['role']}) is empty")


def _spoken(messages: list[Message], facets: Mapping[Facet, str] | None = None) -> Formatted:
    roles = {message["role"] for message in messages}
    if not messages:
        raise RowUnfit("it is empty")
    if "user" not in roles:
        alone = "a lone assistant turn" if roles == {"assistant"} else "nobody asks in it"
        raise RowUnfit(f"{alone}: a chat template wants a user's turn")
    return Formatted(messages, "\n\n".join(_all_words(messages)), facets or {})


def _all_words(messages: list[Message]) -> Iterator[str]:
    for message in messages:
        if "reasoning_content" in message:
            yield message["reasoning_content"]
        if message["content"]:
            yield message["content"]
        for call in message.get("tool_calls", ()):
            yield json.dumps(call["function"], ensure_ascii=False)


def _chat_completion(cells: Cells, params: Params) -> Formatted:
    return _spoken(conversation(cells[0], params, "the conversation"))


def _with_system_prompt(cells: Cells, params: Params) -> Formatted:
    system = words(cells[0], "the system prompt")
    messages = conversation(cells[1], params, "the conversation")
    if not system.strip():
        return _spoken(messages)
    if messages and messages[0]["role"] == "system":  # two of them most templates refuse
        own = messages.pop(0)["content"]
        system = system if own.strip() == system.strip() else f"{system}\n\n{own}"
    return _spoken([{"role": "system", "content": system}, *messages])


def _prompt_answer(cells: Cells, params: Params) -> Formatted:
    return _spoken(_exchange(cells[0], cells[1], params))


def _reasoning_answer(cells: Cells, params: Params) -> Formatted:
    question, answer = _exchange(cells[0], cells[2], {})
    thought = words(cells[1], "the reasoning").strip()
    given = {**answer, "reasoning_content": thought}
    return _spoken([question, *turn(given, 2, params.get("reasoning", "native"))])


def _alpaca(cells: Cells, params: Params) -> Formatted:
    instruction, material, answer = cells
    request = words(instruction, "the instruction")
    if extra := words(material, "the input").strip():
        request = f"{request}\n\n{extra}"
    return _spoken(_exchange(request, answer, params))


def _exchange(prompt: Any, answer: Any, params: Params) -> list[Message]:
    """A question and its answer. Raises RowUnfit when one of them is missing."""
    question = words(prompt, "the prompt")
    if not question.strip():
        raise RowUnfit("the prompt is empty")
    reply = {"role": "assistant", "content": words(answer, "the answer")}
    if not reply["content"].strip():
        raise RowUnfit("the answer is empty")
    placed = turn(reply, 2, params.get("reasoning", "native"), "inline")
    return [{"role": "user", "content": question}, *placed]


def _raw_text(cells: Cells, params: Params) -> Formatted:
    """With a prefix the text is the assistant's answer to it, as the quantizers tool has it."""
    text = words(cells[0], "the text")
    prefix = params.get("prefix", "")
    if not prefix or not text.strip():
        return Formatted(None, text)
    return _spoken([{"role": "user", "content": prefix}, {"role": "assistant", "content": text}])


def _tool_calls(cells: Cells, _params: Params) -> Formatted:
    query = words(cells[0], "the query")
    if not query.strip():
        raise RowUnfit("the query is empty")
    made = calls(cells[1], "the answer")
    if not made:
        raise RowUnfit("the answer calls no tool")
    messages: list[Message] = [
        {"role": "user", "content": query},
        {"role": "assistant", "content": "", "tool_calls": made},
    ]
    if len(cells) > 2:
        given = parsed(cells[2], "the results") if isinstance(cells[2], str) else cells[2]
        for number, result in enumerate(given if isinstance(given, list) else [given], start=1):
            content = result.get("content") if isinstance(result, Mapping) else result
            text = words(content, f"result {number}")
            messages.append({"role": "tool", "content": text})
    return _spoken(messages)


# deepmind/code_contests, ``language`` of a solution: 0 unknown, 1 Python 2, 2 C++, 3 Python 3,
# 4 Java (the proto of the data set, contest_problem.proto).
_CONTEST_LANGUAGES = {1: "Python", 2: "C++", 3: "Python", 4: "Java"}


def _code_contests(cells: Cells, params: Params) -> Formatted:
    """The problem and its first solution, or the first in the language asked for."""
    description, given = words(cells[0], "the description"), cells[1]
    solutions = _rows_of(given) if isinstance(given, Mapping) else given
    if not isinstance(solutions, list):
        raise RowUnfit("its solutions are not a list")
    wanted = params.get("language")
    for one in solutions:
        if not isinstance(one, Mapping):
            raise RowUnfit("a solution is not an object")
        code = one.get("language")
        language = _CONTEST_LANGUAGES.get(code) if isinstance(code, int) else None
        if wanted is None or wanted == language:
            facets = {Facet.PROGRAMMING_LANGUAGE: language} if language else {}
            answer = one.get("solution")
            return _spoken(_exchange(description, answer, {"reasoning": "inline"}), facets)
    raise RowUnfit(f"it has no solution in {wanted}" if wanted else "it has no solution")


_PLACED = {"reasoning": ("native", "inline"), "tool_calls": ("native", "inline")}
_THOUGHT = {"reasoning": ("native", "inline")}

FORMATTERS: dict[str, Formatter] = {
    "chat_completion": Formatter(
        "Conversation, role and content", "one column, a list of turns", 1, 1,
        ("messages",), _chat_completion, _PLACED,
    ),
    "chat_completion_with_sysprompt": Formatter(
        "System prompt and conversation", "two columns, a system prompt and a list of turns", 2, 2,
        ("system", "messages"), _with_system_prompt, _PLACED,
    ),
    "sharegpt": Formatter(
        "ShareGPT, from and value", "one column, a list of turns", 1, 1,
        ("conversations",), _chat_completion, _PLACED,
    ),
    "prompt_answer": Formatter(
        "Prompt and answer", "two columns, a prompt and its answer", 2, 2,
        ("prompt", "response"), _prompt_answer, _THOUGHT,
    ),
    "alpaca": Formatter(
        "Alpaca", "three columns, an instruction, its input (may be empty) and the output", 3, 3,
        ("instruction", "input", "output"), _alpaca, _THOUGHT,
    ),
    "reasoning_answer": Formatter(
        "Prompt, reasoning and answer", "three columns, a prompt, the reasoning, the answer", 3, 3,
        ("prompt", "reasoning", "response"), _reasoning_answer, _THOUGHT,
    ),
    "tool_calls": Formatter(
        "Query and tool calls", "two or three columns, a query, its calls, the calls' results",
        2, 3, ("query", "answers"), _tool_calls,
    ),
    "raw_text": Formatter(
        "Plain text", "one column of text", 1, 1, ("text",), _raw_text, {"prefix": ()},
    ),
    "deepmind_code_contests": Formatter(
        "deepmind/code_contests", "any column (it reads description and solutions)", 0, 50,
        ("description",), _code_contests, {"language": ("C++", "Java", "Python")},
        ("description", "solutions"),
    ),
}  # fmt: skip

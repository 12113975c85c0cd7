"""One turn of a conversation, however a data set spells it, as a chat message.

Data sets say ``role``/``content`` (OpenAI) or ``from``/``value`` (ShareGPT), and have many names
for the same speaker. A message given out has ``role`` (system, user, assistant, tool), ``content``
and, where there are, ``reasoning_content``, ``tool_calls``, ``tool_call_id`` and ``name``: the
fields that chat templates of transformers read.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

Message = dict[str, Any]
# Where something inside the assistant's words goes: to a field of its own, or nowhere.
Placing = Literal["native", "inline"]

ROLES: dict[str, str] = {
    "system": "system",
    "developer": "system",
    "context": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "function_call": "assistant",
    "function-call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "ipython": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "tool_result": "tool",
    "tool-response": "tool",
    "function_response": "tool",
    "function-response": "tool",
}
CALLS = frozenset({"function_call", "function-call", "tool_call"})
REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")

# The first mark may be missing: of some models it is the template's and not of their words.
THOUGHT = re.compile(r"\A\s*(?:<think>)?((?:(?!<think>).)*?)</think>\s*", re.DOTALL)
CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
RESPONSE = re.compile(r"<tool_response>(.*?)</tool_response>", re.DOTALL)

# What text never holds: NUL and the other controls but tab, line breaks and escape (of terminals).
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")


class RowUnfit(Exception):
    """A row that does not fit its formatter; ``reason`` says why, in words for a list."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def words(value: Any, where: str) -> str:
    """A cell as text; None is empty. Raises RowUnfit for what is not text, and for binary."""
    match value:
        case None:
            return ""
        case str():
            text = value
        case bool() | bytes() | bytearray():
            raise RowUnfit(f"{where} is {_kind(value)}, not text")
        case int() | float() if math.isfinite(value):
            text = str(value)
        case list() if all(isinstance(part, Mapping) for part in value):
            text = _parts(value, where)
        case _:
            raise RowUnfit(f"{where} is {_kind(value)}, not text")
    if control := _CONTROLS.search(text):
        code = ord(control[0])
        raise RowUnfit(f"{where} is not text: it has the control character U+{code:04X}")
    if _SURROGATES.search(text):
        raise RowUnfit(f"{where} has half of a surrogate pair, which UTF-8 cannot write")
    return text


def turn(
    given: Any, number: int, reasoning: Placing = "native", tool_calls: Placing = "native"
) -> Iterator[Message]:
    """A turn as messages: one, but for results of several calls in one turn.

    ``native`` takes a leading ``<think>`` out of the assistant's words as ``reasoning_content``,
    and ``<tool_call>`` blocks as ``tool_calls``; ``inline`` leaves the words as they came. Raises
    RowUnfit.
    """
    if not isinstance(given, Mapping):
        raise RowUnfit(f"turn {number} is {_kind(given)}, not an object with a role and content")
    name = _speaker(given, number)
    role = ROLES[name]
    content = words(_first(given, "content", "value", "text"), f"the content of turn {number}")
    if role == "tool":
        yield from _results(given, content, tool_calls)
        return
    message: Message = {"role": role, "content": content}
    if role == "assistant":
        _take_reasoning(message, given, number, reasoning)
        _take_calls(message, given, number, is_call=name in CALLS, placing=tool_calls)
    yield message


def calls(given: Any, where: str) -> list[dict[str, Any]]:
    """Tool calls as a list of ``{"type": "function", "function": {"name", "arguments"}}``,
    arguments an object. Raises RowUnfit."""
    found = parsed(given, where) if isinstance(given, str) else given
    listed = found if isinstance(found, list) else [found]
    return [_call(one, where) for one in listed]


def parsed(text: str, where: str) -> Any:
    """JSON text as what it says. Raises RowUnfit."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RowUnfit(f"{where} is not JSON: {error}") from error


def _speaker(given: Mapping[str, Any], number: int) -> str:
    name = _first(given, "role", "from", "speaker")
    if not isinstance(name, str) or not name.strip():
        raise RowUnfit(f"turn {number} has no role")
    known = name.strip().lower()
    if known not in ROLES:
        raise RowUnfit(f"turn {number} has the unknown role {name[:40]!r}")
    return known


def _take_reasoning(
    message: Message, given: Mapping[str, Any], number: int, placing: Placing
) -> None:
    thought = words(_first(given, *REASONING_FIELDS), f"the reasoning of turn {number}")
    if placing == "inline":
        if thought:
            message["content"] = f"<think>\n{thought}\n</think>\n\n{message['content']}"
        return
    if not thought and (found := THOUGHT.match(message["content"])):
        thought = found[1].strip()
        message["content"] = message["content"][found.end() :]
    if thought:
        message["reasoning_content"] = thought


def _take_calls(
    message: Message, given: Mapping[str, Any], number: int, *, is_call: bool, placing: Placing
) -> None:
    """Calls that a field names, that the whole turn is, or that stand in the words."""
    where = f"the tool call of turn {number}"
    content = message["content"]
    if listed := _first(given, "tool_calls", "function_call"):
        message["tool_calls"] = calls(listed, where)
    elif is_call:
        message["tool_calls"], message["content"] = calls(content, where), ""
    elif placing == "native" and (blocks := CALL.findall(content)):
        message["tool_calls"] = [call for block in blocks for call in calls(block.strip(), where)]
        message["content"] = CALL.sub("", content).strip()


def _results(given: Mapping[str, Any], content: str, placing: Placing) -> Iterator[Message]:
    """What tools gave back: a template writes the tags of a response itself."""
    blocks = [block.strip() for block in RESPONSE.findall(content)] if placing == "native" else []
    named = {
        key: words(given[key], f"the {key} of a result")
        for key in ("name", "tool_call_id")
        if isinstance(given.get(key), str)
    }
    for block in blocks or [content]:
        yield {"role": "tool", "content": block, **named}


def _call(given: Any, where: str) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise RowUnfit(f"{where} is {_kind(given)}, not an object with a name and arguments")
    inner = given.get("function")
    function = inner if isinstance(inner, Mapping) else given
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise RowUnfit(f"{where} names no function")
    arguments = _first(function, "arguments", "parameters")
    if isinstance(arguments, str):
        arguments = _object_or_text(arguments)
    if arguments is None:
        arguments = {}
    made = {"name": words(name, where), "arguments": _plain(arguments, where)}
    number = given.get("id")
    named = {"id": words(number, where)} if isinstance(number, str) else {}
    return {**named, "type": "function", "function": made}


def _object_or_text(text: str) -> Any:
    """Arguments that came as JSON text as what they say; text that is none stays."""
    try:
        return json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        return text


def _plain(value: Any, where: str) -> Any:
    """A value that JSON can write. Raises RowUnfit."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise RowUnfit(f"{where} holds what JSON cannot write: {error}") from error
    return json.loads(text)


def _parts(parts: list[Any], where: str) -> str:
    """The text of a content that is a list of parts."""
    for part in parts:
        if not isinstance(part.get("text"), str):
            kind = str(part.get("type", "unknown"))[:40]
            raise RowUnfit(f"{where} has a part of the kind {kind!r}, not text")
    return "".join(part["text"] for part in parts)


def _first(given: Mapping[str, Any], *names: str) -> Any:
    """The first of some fields that is there and not None."""
    return next((given[name] for name in names if given.get(name) is not None), None)


def _kind(value: Any) -> str:
    match value:
        case None:
            return "missing"
        case bool():
            return "true or false"
        case bytes() | bytearray():
            return "binary"
        case Mapping():
            return "an object"
        case list() | tuple():
            return "a list"
        case str():
            return "text"
        case _:
            return f"a {type(value).__name__}"

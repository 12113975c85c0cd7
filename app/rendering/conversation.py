"""A row's conversation on its way to the chat template: its prompt, its reasoning, its tool calls;
and where each turn's words stand in the rendered text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.rendering.chat_template import ChatTemplate, Message, RowRefused

# How reasoning reaches the model: inside the assistant's words, as the template wants it, not.
Reasoning = Literal["inline", "native", "stripped"]

# The field in which rows have their reasoning.
NATIVE = "reasoning_content"

# Reasoning as models write it into their own words: before the answer, between these marks. The
# first may be missing: of some models it is the template's.
_THINKING = re.compile(
    r"\A\s*(?:<think>)?(?P<reasoning>(?:(?!<think>).)*?)</think>\s*(?P<rest>.*)\Z", re.DOTALL
)


Render = Callable[[Sequence[Message]], str | RowRefused]


@dataclass(frozen=True)
class Turn:
    """The words of one message in the rendered text: characters ``start`` to ``end``, and the
    ``tokens`` that are left of them at the maximum length."""

    role: str
    start: int
    end: int
    tokens: int = 0


def with_prompt(messages: Sequence[Message], words: str) -> list[Message]:
    """The conversation with words before its first user turn, or as the user turn of one that
    has none. Raises RowRefused where that turn is not text."""
    for at, message in enumerate(messages):
        if message.get("role") == "user":
            content = message.get("content")
            if not isinstance(content, str):
                raise RowRefused(
                    "its first user turn is not text, so no prompt can stand before it"
                )
            return [*messages[:at], {**message, "content": words + content}, *messages[at + 1 :]]
    after_system = sum(message.get("role") in ("system", "developer") for message in messages[:1])
    return [*messages[:after_system], {"role": "user", "content": words}, *messages[after_system:]]


def prepared(
    messages: Sequence[Message], reasoning: Reasoning, template: ChatTemplate
) -> list[Message]:
    """The conversation as the template is given it.

    Reasoning goes where ``reasoning`` says; a template that reads it from no field is given native
    reasoning inside the words, or it would be lost. The arguments of tool calls are
    objects, as templates expect (transformers' "Tool use" guide), where they came as JSON text.
    """
    field = template.reasoning_field
    if reasoning == "native" and field is None:
        reasoning = "inline"
    placed = with_reasoning(messages, reasoning)
    return [_with_objects(_with_field(message, field)) for message in placed]


def with_reasoning(messages: Sequence[Message], how: Reasoning) -> list[Message]:
    """The conversation with the assistant's reasoning where ``how`` says: in
    ``reasoning_content``, inside the words, or nowhere."""
    return [_with_reasoning(message, how) for message in messages]


def _with_field(message: Message, field: str | None) -> Message:
    """The message, its reasoning in the field that the template reads."""
    if field in (None, NATIVE) or NATIVE not in message:
        return message
    return {field if key == NATIVE else key: value for key, value in message.items()}


def _with_reasoning(message: Message, how: Reasoning) -> Message:
    if message.get("role") != "assistant":
        return message
    content, reasoning = message.get("content"), message.get(NATIVE)
    rest = content
    if not reasoning and isinstance(content, str) and (found := _THINKING.match(content)):
        reasoning, rest = found["reasoning"].strip("\n"), found["rest"]
    if not isinstance(reasoning, str) or not reasoning.strip():
        return message
    plain = {key: value for key, value in message.items() if key != NATIVE}
    if how == "stripped":
        return {**plain, "content": rest}
    if how == "native":
        return {**plain, "content": rest, NATIVE: reasoning}
    words = rest if isinstance(rest, str) else ""
    return {**plain, "content": f"<think>\n{reasoning}\n</think>\n\n{words}"}


def _with_objects(message: Message) -> Message:
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    return {**message, "tool_calls": [_with_arguments(call) for call in calls]}


def _with_arguments(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except ValueError:
        return call  # the template decides what to do with what is no JSON
    if not isinstance(arguments, dict):
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def turns_in(text: str, messages: Sequence[Message], render: Render) -> list[Turn]:
    """Where the words of each message stand in the text, looked for in order.

    A message whose words are not there as they are (a tool call, content that the template
    rewrites) has what ``render`` leaves out of the text without it, between its neighbours' words;
    empty ones have none.
    """
    found = list(_found(text, messages))
    turns: list[Turn] = []
    for at, (message, span) in enumerate(zip(messages, found, strict=True)):
        if span is None and _has_words(message):
            first = turns[-1].end if turns else 0
            last = next((later[0] for later in found[at + 1 :] if later), len(text))
            silent = {"role": message.get("role"), "content": ""}
            other = render([*messages[:at], silent, *messages[at + 1 :]])
            span = _difference(text, other, first, last)
        if span is not None and span[0] < span[1]:
            turns.append(Turn(str(message.get("role", "")), *span))
    return turns


def _difference(text: str, other: str | RowRefused, first: int, last: int) -> tuple[int, int]:
    """The part of ``text`` between what it begins with as ``other`` does and what both end with,
    inside ``first`` to ``last``; all of that where there is no other text."""
    if isinstance(other, RowRefused):
        return first, last
    start = _agreement(text, other)
    end = len(text) - _agreement(text[start:][::-1], other[start:][::-1])
    return max(first, start), min(last, end)


def _agreement(text: str, other: str) -> int:
    """How many characters two texts share from their beginning."""
    pairs = enumerate(zip(text, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(text), len(other)))


def _found(text: str, messages: Sequence[Message]) -> Iterator[tuple[int, int] | None]:
    position = 0
    for at, message in enumerate(messages):
        start = None
        thought = _trimmed(message, NATIVE) or _trimmed(message, "thinking")
        said = _trimmed(message, "content")
        place = text.find(thought, position) if thought else -1
        # templates leave reasoning out of earlier turns: what has no words of this or the next
        # turn after it is the reasoning of a later one
        following = next(
            (words for one in messages[at:] if (words := _trimmed(one, "content"))), ""
        )
        if place >= 0 and text.find(following, place + len(thought)) >= 0:
            start, position = place, place + len(thought)
        place = text.find(said, position) if said else -1
        if place >= 0:
            start = place if start is None else start
            position = place + len(said)
        # calls stand after the words, in a form of the template's own
        is_whole = start is not None and not message.get("tool_calls")
        yield (start, position) if start is not None and is_whole else None


def _trimmed(message: Message, field: str) -> str:
    words = message.get(field)
    return words.strip() if isinstance(words, str) else ""


def _has_words(message: Message) -> bool:
    return any(message.get(field) for field in ("content", NATIVE, "thinking", "tool_calls"))

"""Conversation → text → token ids, and how many of the ids are the content a row is there for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from app.calibration.chat_template import ChatTemplate, Message, RowRefused, load_chat_template
from app.calibration.tokenizer import ModelTokenizer, load_tokenizer

# Whether a row's facet labels are true of its content, or only named by its prompt ("answer in
# Hebrew" over an English text).
LabelIn = Literal["content", "prompt"]

Span = tuple[int, int]


@dataclass(frozen=True)
class Rendered:
    """A row as the model sees it.

    ``input_ids`` are cut at the tail to the maximum length, ``full_tokens`` is the length before.
    ``fed_tokens`` are those of the assistant's content after the cut, ``named_tokens`` the same
    where the label is only in the prompt; one of the two is zero.
    """

    text: str
    input_ids: NDArray[np.int32]
    full_tokens: int
    fed_tokens: int
    named_tokens: int


@dataclass(frozen=True)
class Renderer:
    """A chat template and a tokenizer that belong together. ``max_length`` in tokens."""

    template: ChatTemplate
    tokenizer: ModelTokenizer
    max_length: int

    @classmethod
    def of_model(cls, directory: Path, max_length: int) -> Renderer:
        """The renderer of a model directory. Raises ModelRefused when a part is missing."""
        tokenizer = load_tokenizer(directory)
        return cls(load_chat_template(directory), tokenizer, max_length)

    def render(
        self, conversations: Sequence[Sequence[Message]], label_in: LabelIn = "content"
    ) -> list[Rendered | RowRefused]:
        """Each conversation rendered, or the reason why it cannot be, in the order given."""
        texts = [self._text(conversation) for conversation in conversations]
        good = [text for text in texts if isinstance(text, str)]
        encodings = iter(self.tokenizer.encode(good, add_special_tokens=False))
        return [
            text
            if isinstance(text, RowRefused)
            else self._rendered(text, next(encodings), self._content(conversation, text), label_in)
            for conversation, text in zip(conversations, texts, strict=True)
        ]

    def render_plain(self, texts: Sequence[str]) -> list[Rendered]:
        """Texts without a conversation, all of each fed, with the tokenizer's own BOS and EOS."""
        encodings = self.tokenizer.encode(texts, add_special_tokens=True)
        return [
            self._rendered(text, encoding, [(0, len(text))], "content")
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def _text(self, conversation: Sequence[Message]) -> str | RowRefused:
        try:
            text = self.template.render(conversation)
        except RowRefused as refusal:
            return refusal
        return text or RowRefused("the chat template renders it to nothing")

    def _content(self, conversation: Sequence[Message], text: str) -> list[Span]:
        """Where the assistant's words stand in the rendered text, as character spans."""
        spans = list(_found(conversation, text))
        if len(spans) == sum(message.get("role") == "assistant" for message in conversation):
            return spans
        # the template rewrites the content: what differs from the same without it is content
        silent = [
            {**message, "content": ""} if message.get("role") == "assistant" else message
            for message in conversation
        ]
        other = self._text(silent)
        return [] if isinstance(other, RowRefused) else [_difference(text, other)]

    def _rendered(
        self, text: str, encoding: Encoding, content: Sequence[Span], label_in: LabelIn
    ) -> Rendered:
        ids = np.asarray(encoding.ids, dtype=np.int32)
        fed = _tokens_in(encoding.offsets[: self.max_length], content)
        return Rendered(
            text=text,
            input_ids=ids[: self.max_length],
            full_tokens=len(ids),
            fed_tokens=fed if label_in == "content" else 0,
            named_tokens=fed if label_in == "prompt" else 0,
        )


def _found(conversation: Sequence[Message], text: str) -> Iterator[Span]:
    """Spans of the assistant's turns that stand in the text as they are, looked for in order."""
    position = 0
    for message in conversation:
        content = message.get("content")
        words = content.strip() if isinstance(content, str) else ""
        start = text.find(words, position) if words else -1
        if start < 0:
            continue
        position = start + len(words)
        if message.get("role") == "assistant":
            yield start, position


def _difference(text: str, other: str) -> Span:
    """The part of ``text`` between what both begin with and what both end with."""
    start = _agreement(text, other)
    end = _agreement(text[start:][::-1], other[start:][::-1])
    return start, len(text) - end


def _agreement(text: str, other: str) -> int:
    """How many characters two texts share from their beginning."""
    pairs = enumerate(zip(text, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(text), len(other)))


def _tokens_in(offsets: Sequence[Span], spans: Sequence[Span]) -> int:
    """How many tokens have a character inside one of the spans."""
    starts = np.fromiter((start for start, _ in offsets), dtype=np.int64, count=len(offsets))
    ends = np.fromiter((end for _, end in offsets), dtype=np.int64, count=len(offsets))
    inside = np.zeros(len(starts), dtype=np.bool_)
    for first, last in spans:
        inside |= (ends > first) & (starts < last) & (ends > starts)
    return int(inside.sum())

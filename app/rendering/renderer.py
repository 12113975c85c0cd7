"""Conversation → text → token ids, and how many of the ids are the content a row is there for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from app.rendering.chat_template import ChatTemplate, Message, RowRefused, load_chat_template
from app.rendering.conversation import Reasoning, Turn, prepared, turns_in
from app.rendering.tokenizer import ModelTokenizer, load_tokenizer
from app.rendering.truncation import Cut, Truncation, cut_of

# In the manifest of every set and the name of every index: another way of rendering, or of finding
# each turn's words, is another text or other counts.
ALGORITHM = 2

# A length no row reaches.
UNCUT = 2**31 - 1

Span = tuple[int, int]


@dataclass(frozen=True)
class Rendered:
    """A row as the model sees it.

    ``text`` is whole, ``input_ids`` are what is left of it at the maximum length, ``full_tokens``
    its length before. ``turns`` say where each message's words stand in the text, ``cut`` which
    characters of it the ids have no more (None: nothing was cut). ``fed_tokens`` are those of the
    assistant's words after the cut.
    """

    text: str
    input_ids: NDArray[np.int32]
    full_tokens: int
    fed_tokens: int
    turns: tuple[Turn, ...]
    cut: Span | None


@dataclass(frozen=True)
class Renderer:
    """A chat template and a tokenizer that belong together, and how rows are given to them.
    ``max_length`` in tokens."""

    template: ChatTemplate
    tokenizer: ModelTokenizer
    max_length: int = UNCUT
    truncation: Truncation = "tail"
    reasoning: Reasoning = "native"

    @classmethod
    def of_model(
        cls,
        directory: Path,
        max_length: int = UNCUT,
        truncation: Truncation = "tail",
        reasoning: Reasoning = "native",
    ) -> Renderer:
        """The renderer of a model directory. Raises ModelRefused when a part of it is missing."""
        tokenizer, template = load_tokenizer(directory), load_chat_template(directory)
        return cls(template, tokenizer, max_length, truncation, reasoning)

    def render(self, conversations: Sequence[Sequence[Message]]) -> list[Rendered | RowRefused]:
        """Each conversation rendered, or the reason why it cannot be, in the order given."""
        given = [prepared(talk, self.reasoning, self.template) for talk in conversations]
        texts = [self._text(talk) for talk in given]
        good = [text for text in texts if isinstance(text, str)]
        encodings = iter(self.tokenizer.encode(good, add_special_tokens=False))
        return [
            text if isinstance(text, RowRefused) else self._rendered(text, next(encodings), talk)
            for talk, text in zip(given, texts, strict=True)
        ]

    def lengths(self, conversations: Sequence[Sequence[Message]]) -> list[int | RowRefused]:
        """The whole length of each conversation in tokens, or why it cannot be rendered."""
        texts = [
            self._text(prepared(talk, self.reasoning, self.template)) for talk in conversations
        ]
        counts = iter(self.tokenizer.count([text for text in texts if isinstance(text, str)]))
        return [text if isinstance(text, RowRefused) else next(counts) for text in texts]

    def _text(self, conversation: Sequence[Message]) -> str | RowRefused:
        try:
            text = self.template.render(conversation)
        except RowRefused as refusal:
            return refusal
        return text or RowRefused("the chat template renders it to nothing")

    def _rendered(self, text: str, encoding: Encoding, conversation: Sequence[Message]) -> Rendered:
        ids, offsets = encoding.ids, encoding.offsets
        cut = cut_of(len(ids), self.max_length, self.truncation)
        left = np.asarray([*offsets[: cut.start], *offsets[cut.end :]], dtype=np.int64)
        turns = [
            replace(turn, tokens=_tokens_in(left, turn.start, turn.end))
            for turn in turns_in(text, conversation, self._text)
        ]
        kept = cut.kept(ids)
        return Rendered(
            text=text,
            input_ids=np.asarray(kept, dtype=np.int32),
            full_tokens=len(ids),
            fed_tokens=sum(turn.tokens for turn in turns if turn.role == "assistant"),
            turns=tuple(turns),
            cut=_characters(cut, offsets, len(text)),
        )


def _characters(cut: Cut, offsets: Sequence[Span], length: int) -> Span | None:
    """The characters that lost tokens stand for."""
    if not cut.tokens:
        return None
    start = offsets[cut.start][0] if cut.start else 0
    end = offsets[cut.end][0] if cut.end < len(offsets) else length
    return start, max(start, end)


def _tokens_in(offsets: NDArray[np.int64], first: int, last: int) -> int:
    """How many tokens, given as characters ``[tokens, 2]``, have one from ``first`` to ``last``."""
    if not len(offsets):
        return 0
    starts, ends = offsets.T
    return int(((ends > first) & (starts < last) & (ends > starts)).sum())

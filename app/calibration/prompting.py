"""The prompts of a composition's slices: which value each row is given, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from app.calibration.spec import Prompt, SetSpec
from app.facets import Facet, label_of
from app.prompts.rotation import rotation
from app.prompts.sandbox import PromptRefused
from app.prompts.template import PromptTemplate
from app.rendering.chat_template import Message, RowRefused
from app.rendering.conversation import with_prompt
from app.rendering.tokenizer import ModelTokenizer

# Columns that not every revision of a source has: hash(row|string) must not change with them.
_NOT_GIVEN = frozenset({"own_license"})

# A prompt and the words after it may be cut into a few more tokens than each alone.
SEAM = 4


@dataclass(frozen=True)
class Assigned:
    """What a row's prompt is: its template, and the value it names (None: it names none)."""

    prompt: Prompt
    value: str | None

    @property
    def facet(self) -> Facet | None:
        """The facet of the value."""
        return self.prompt.facet

    @property
    def label(self) -> str | None:
        """The value as a person reads it."""
        if self.value is None or self.facet is None:
            return None
        return label_of(self.facet, self.value)

    def words(self, row: Mapping[str, Any]) -> str:
        """The words put before a row. Raises PromptRefused."""
        fields = {name: value for name, value in row.items() if name not in _NOT_GIVEN}
        return PromptTemplate(self.prompt.template).render(fields, self.label)

    def before(self, row: Mapping[str, Any], messages: Sequence[Message]) -> list[Message]:
        """The row's conversation with its prompt. A passage without a conversation is the answer
        to the prompt: no other request is made up for it. Raises RowRefused."""
        if not row.get("messages"):
            messages = [message for message in messages if message.get("role") == "assistant"]
        try:
            return with_prompt(messages, self.words(row))
        except PromptRefused as refusal:
            raise RowRefused(refusal.sentence.rstrip(".")) from refusal


def assign(
    spec: SetSpec, row_ids: Sequence[str], slice_numbers: Sequence[int]
) -> dict[str, Assigned]:
    """The prompt of every row whose slice has one.

    Slices that assign the same values share one rotation: of n rows each of k values gets n/k,
    rounded down or up, however small the slices are.
    """
    prompts = {number: part.prompt for number, part in enumerate(spec.slices) if part.prompt}
    assigned: dict[str, Assigned] = {}
    groups: dict[tuple[Facet | None, tuple[str, ...]], list[tuple[str, Prompt]]] = {}
    for row_id, number in zip(row_ids, slice_numbers, strict=True):
        if prompt := prompts.get(number):
            key = prompt.facet, tuple(sorted(set(prompt.values)))
            groups.setdefault(key, []).append((row_id, prompt))
    for (_, values), rows in groups.items():
        ids = [row_id for row_id, _ in rows]
        given: Sequence[str | None] = (
            rotation(ids, values, spec.seed) if values else [None] * len(rows)
        )
        for (row_id, prompt), value in zip(rows, given, strict=True):
            assigned[row_id] = Assigned(prompt, value)
    return assigned


@lru_cache(maxsize=1024)
def most_tokens(prompt: Prompt, tokenizer: ModelTokenizer) -> int:
    """How many tokens a prompt adds to a row at most, over its values.

    A template that reads the row is not known before it: 0 then. A build counts every prompt it
    writes, and leaves rows out where a budget would be passed.
    """
    words = []
    for value in prompt.values or (None,):
        try:
            words.append(Assigned(prompt, value).words({}))
        except PromptRefused:
            return 0
    return max(tokenizer.count(words)) + SEAM

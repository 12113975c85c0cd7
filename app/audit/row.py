"""One row as the audit looks at it, and what its content was found to be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from app.calibration.duplicate_rows import said_in
from app.detection.content import Found
from app.facets import Facet
from app.prompts.named_languages import named_in

T = TypeVar("T")
Detect = Callable[[str], tuple[Found, ...]]

DETECTED = (Facet.SPOKEN_LANGUAGE, Facet.PROGRAMMING_LANGUAGE)
# A label is true of a row when so much of its content is what the label says; fewer are a
# quotation or a keyword.
ENOUGH_OF_A_ROW = 0.1
NOT_KNOWN = "not told"


def content_turns(turns: Sequence[T], role_of: Callable[[T], str]) -> list[T]:
    """The turns a row is there for: the assistant's, or all but the system's in a row without."""
    answers = [turn for turn in turns if role_of(turn) == "assistant"]
    return answers or [turn for turn in turns if role_of(turn) != "system"]


@dataclass(frozen=True, slots=True)
class AuditedTurn:
    """The words of one turn, and how many tokens are left of them after the cut; ``cut`` are the
    characters of ``text`` that are fed no more."""

    role: str
    text: str
    tokens: int
    cut: tuple[int, int] = (0, 0)

    @property
    def left(self) -> int:
        """How many characters are fed."""
        return self.left_of(0, len(self.text))

    def left_of(self, start: int, end: int) -> int:
        """How many characters of ``text[start:end]`` are fed."""
        return end - start - max(0, min(end, self.cut[1]) - max(start, self.cut[0]))


@dataclass(frozen=True, slots=True)
class AuditedRow:
    """A row of a built set. ``tokens`` are fed, ``full_tokens`` were there before the cut;
    ``labels`` are those it was chosen by, ``named`` values a prompt was assigned; ``has_prompt``
    whether one stands before it."""

    row_id: str
    source: str
    slice: str
    tokens: int
    full_tokens: int
    turns: tuple[AuditedTurn, ...]
    labels: Mapping[Facet, str | None] = field(default_factory=dict)
    named: Mapping[Facet, str] = field(default_factory=dict)
    has_prompt: bool = False

    @property
    def content(self) -> tuple[AuditedTurn, ...]:
        """The turns the row is there for."""
        return tuple(content_turns(self.turns, lambda turn: turn.role))

    @property
    def words(self) -> str:
        """What the row says before the cut: duplicates are looked for in it."""
        turns = [(turn.role, turn.text) for turn in self.turns]
        return said_in(turns, has_prompt=self.has_prompt)

    @property
    def content_tokens(self) -> int:
        """The tokens of the content."""
        return sum(turn.tokens for turn in self.content)


@dataclass(frozen=True, slots=True)
class RowTruth:
    """What a row's words were found to be, in tokens.

    ``content`` counts the content by facet and value, ``roles`` all words by facet, value and role;
    ``could_be`` are programming languages that the content's code may be in; ``named`` are the
    values the row's prompts ask for.
    """

    content: Mapping[Facet, Counter[str]]
    roles: Counter[tuple[Facet, str, str]]
    could_be: frozenset[str]
    named: frozenset[tuple[Facet, str]]

    def holds(self, facet: Facet, value: str) -> bool:
        """Whether enough of the content is of a value."""
        tokens = self.content[facet]
        everything = sum(sum(counts.values()) for counts in self.content.values())
        return tokens[value] > 0 and tokens[value] >= ENOUGH_OF_A_ROW * everything

    def lacks(self, facet: Facet, value: str) -> bool:
        """Whether the content is surely not of a value: none of it is, and none of it is code in
        a language that was not told, or not told from this one."""
        if self.holds(facet, value) or value in self.could_be:
            return False
        untold = self.content[Facet.PROGRAMMING_LANGUAGE][NOT_KNOWN]
        return facet is not Facet.PROGRAMMING_LANGUAGE or not untold

    def most(self, facet: Facet) -> str | None:
        """The value most of the content of a facet is of."""
        counts = self.content[facet]
        return max(counts, key=lambda value: (counts[value], value)) if counts else None


def truth_of(row: AuditedRow, detect: Detect) -> RowTruth:
    """Look at every turn of a row: at its whole text, since more of it tells more. What is left of
    each part after the cut is counted."""
    content: dict[Facet, Counter[str]] = {facet: Counter() for facet in DETECTED}
    roles: Counter[tuple[Facet, str, str]] = Counter()
    could_be: set[str] = set()
    named = set(row.named.items())
    inside = {id(turn) for turn in row.content}
    for turn in row.turns:
        found = detect(turn.text)
        if turn.role in ("user", "system"):
            named |= named_in(turn.text)
        left = [turn.left_of(part.start, part.end) for part in found]
        length = max(1, sum(left))
        for part, characters in zip(found, left, strict=True):
            value = _value(part, row.labels.get(Facet.PROGRAMMING_LANGUAGE))
            if value is None or not characters:
                continue
            tokens = round(turn.tokens * characters / length)
            roles[(*value, turn.role)] += tokens
            if id(turn) in inside:
                content[value[0]][value[1]] += tokens
                could_be |= set(part.could_be)
    return RowTruth(content, roles, frozenset(could_be), frozenset(named))


def _value(part: Found, label: str | None) -> tuple[Facet, str] | None:
    """What a part counts for; a label that detection does not tell from what it found counts."""
    if part.kind == "code":
        if label in part.could_be:
            return Facet.PROGRAMMING_LANGUAGE, str(label)
        return Facet.PROGRAMMING_LANGUAGE, part.programming_language or NOT_KNOWN
    if part.spoken_language is None:
        return None
    return Facet.SPOKEN_LANGUAGE, part.spoken_language

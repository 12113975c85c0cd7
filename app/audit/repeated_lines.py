"""Lines that many rows have in common outside the assistant's words: prompts, system prompts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.audit.report import Repeated
from app.audit.row import AuditedRow

# A line repeats when it stands in so many rows; a shorter one is a separator or a "Yes.".
REPEATS = 3
SHORTEST = 8
MOST_LINES = 20
_LINE = re.compile(rf"\S.{{{SHORTEST - 2},}}\S")


@dataclass
class _Line:
    text: str
    role: str
    rows: int = 0
    tokens: float = 0.0


class RepeatedLines:
    """Counts the lines of rows as they come."""

    def __init__(self) -> None:
        self._lines: dict[int, _Line] = {}

    def add(self, row: AuditedRow) -> None:
        """Count the lines of a row, each once for the row; its tokens by its share of the turn."""
        seen: set[int] = set()
        for turn in row.turns:
            if turn.role == "assistant":
                continue
            for match in _LINE.finditer(turn.text) if turn.left else ():
                line, start = match[0], match.start()
                key = hash((turn.role, line))  # salted, but it never leaves this object
                kept = self._lines.setdefault(key, _Line(line[:200], turn.role))
                kept.rows += key not in seen
                kept.tokens += turn.tokens * turn.left_of(start, start + len(line)) / turn.left
                seen.add(key)

    def repeated(self) -> tuple[int, list[Repeated]]:
        """The tokens of all lines that repeat, and those that cost most."""
        lines = sorted(
            (line for line in self._lines.values() if line.rows >= REPEATS),
            key=lambda line: (-line.tokens, line.text),
        )
        listed = [
            Repeated(text=line.text, role=line.role, rows=line.rows, tokens=round(line.tokens))
            for line in lines[:MOST_LINES]
        ]
        return round(sum(line.tokens for line in lines)), listed

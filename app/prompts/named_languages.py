"""Which languages a prompt asks for, read from its words: "Answer in Hebrew", "using Haskell"."""

from __future__ import annotations

import re
from collections.abc import Iterator

from app.facets import PROGRAMMING_LANGUAGES, SPOKEN_LANGUAGES, Facet
from app.prompts.rotation import OTHER_NAMES

# Prompts say what they want at their beginning or their end; between may lie a whole document.
LOOKED_AT = 1_000

# Names that are words of other things as well are believed only as they are written.
_NAMES: dict[str, tuple[Facet, str]] = {
    **{label: (Facet.SPOKEN_LANGUAGE, code) for code, label in SPOKEN_LANGUAGES.items()},
    **{name: (Facet.PROGRAMMING_LANGUAGE, name) for name in PROGRAMMING_LANGUAGES},
    **{
        name: (Facet.PROGRAMMING_LANGUAGE, value)
        for other, value in OTHER_NAMES.items()
        for name in {other.title(), other.upper() if len(other) < 4 else other.capitalize()}
    },
    "Cobol": (Facet.PROGRAMMING_LANGUAGE, "COBOL"),
}
_LONGEST_FIRST = sorted(_NAMES, key=lambda name: (-len(name), name))
_ASKED = re.compile(
    r"\b(?:[Ii]n|[Uu]sing|[Ii]nto|[Ww]rite|[Ww]ith|[Tt]o)\s+(?:the\s+)?("
    + "|".join(re.escape(name) for name in _LONGEST_FIRST)
    + r")(?![\w+#/])(?:\s+code\b)?"
)


def named_in(prompt: str) -> set[tuple[Facet, str]]:
    """The spoken and programming languages a prompt asks for, in the vocabulary's values."""
    return set(_asked(prompt[:LOOKED_AT])) | set(_asked(prompt[-LOOKED_AT:]))


def _asked(text: str) -> Iterator[tuple[Facet, str]]:
    for match in _ASKED.finditer(text):
        yield _NAMES[match[1]]

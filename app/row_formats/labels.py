"""A row's own labels, in the words of the facets' vocabularies."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from app.facets import Facet, vocabulary

LONGEST_LABEL = 80

# Names people use that are neither a value nor its label.
_OTHER_NAMES: dict[Facet, dict[str, str]] = {
    Facet.SPOKEN_LANGUAGE: {
        "ara": "ar", "deu": "de", "eng": "en", "fra": "fr", "heb": "he", "hin": "hi",
        "jpn": "ja", "kor": "ko", "por": "pt", "rus": "ru", "spa": "es", "tur": "tr", "zho": "zh",
    },
    Facet.PROGRAMMING_LANGUAGE: {
        "shell": "Bash/Shell", "bash": "Bash/Shell", "sh": "Bash/Shell", "cpp": "C++",
        "csharp": "C#", "fsharp": "F#", "golang": "Go", "html": "HTML/CSS", "css": "HTML/CSS",
        "js": "JavaScript", "ts": "TypeScript", "py": "Python", "python3": "Python",
        "objectivec": "Objective-C", "assembly": "x86-64 ASM", "common lisp": "Lisp", "rs": "Rust",
    },
    Facet.DOMAIN: {"coding": "code", "programming": "code", "chat": "general-chat"},
}  # fmt: skip


def own_labels(columns: Mapping[Facet, str], cells: Mapping[str, Any]) -> dict[Facet, str]:
    """The values of facets that a row names itself: in the column given for a facet, or else in
    the one called like it."""
    found = {}
    for facet in Facet:
        value = cells.get(columns.get(facet, facet.value))
        if isinstance(value, str) and (label := value.strip()) and label.isprintable():
            found[facet] = known_value(facet, label[:LONGEST_LABEL])
    return found


def known_value(facet: Facet, label: str) -> str:
    """The vocabulary's value for a label in any case (``python`` → ``Python``, ``German`` →
    ``de``); a label it does not know stays."""
    key = label.lower()
    if facet is Facet.SPOKEN_LANGUAGE:  # fr-CA and pt_BR are French and Portuguese
        key = key if key in _names(facet) else key.replace("_", "-").partition("-")[0]
    return _names(facet).get(key, label)


@cache
def _names(facet: Facet) -> dict[str, str]:
    known = vocabulary(facet)
    return {
        **_OTHER_NAMES[facet],
        **{label.lower(): value for value, label in known.items()},
        **{value.lower(): value for value in known},
    }

"""What a text is: prose, code or data; its script, its spoken or its programming language.

Detection looks at the content alone, never at a label, so that the audit can hold the one against
the other. Spoken languages are told by lingua (P. M. Stahl), programming languages by
:mod:`app.detection.programming_language`. Both models are read at their first use.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from app.detection.programming_language import programming_language
from app.detection.programming_marks import MARKS, marked

if TYPE_CHECKING:
    from lingua import LanguageDetector

Kind = Literal["prose", "code", "data"]

# A change of what is found in a text: kept findings of another version are not used.
ALGORITHM = "detection-2"

# Signs of code for each character that is no space. On the starter corpus 0.7 % of the code has
# fewer than the first, 0.7 % of the prose more than the second; between them it is looked closer.
PROSE_BELOW = 0.02
CODE_ABOVE = 0.08
# Fewer letters than this are "unknown": a word like "OK" is in no language.
FEWEST_LETTERS = 24
FEWEST_SYLLABLES = 8
LEAST_CONFIDENCE = 0.6
SHORTEST_CODE = 24
# A spoken language is told from so many characters, in three pieces of the text.
SAMPLE = 1_500

# Besides our own vocabulary those most met on the web: a text in one of them is named by its code
# and is not pressed into a neighbour.
LANGUAGES = (
    "ar", "de", "en", "es", "fr", "he", "hi", "ja", "ko", "pt", "ru", "tr", "zh",
    "bg", "bn", "ca", "cs", "da", "el", "fa", "fi", "hr", "hu", "id", "it", "mr", "nb", "nl", "pl",
    "ro", "sk", "sv", "ta", "te", "th", "uk", "ur", "vi",
)  # fmt: skip

SCRIPTS: dict[str, str] = {
    "Latin": r"A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ",
    "Cyrillic": r"Ѐ-ӿ",
    "Greek": r"Ͱ-Ͽἀ-῿",
    "Hebrew": r"\u0590-\u05ff\ufb1d-\ufb4f",
    "Arabic": r"\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufeff",
    "Devanagari": r"\u0900-\u097f",
    "Bengali": r"\u0980-\u09ff",
    "Tamil": r"\u0b80-\u0bff",
    "Telugu": r"\u0c00-\u0c7f",
    "Thai": r"\u0e00-\u0e7f",
    "Kana": r"\u3040-\u30ff",
    "Hangul": r"\u1100-\u11ff\uac00-\ud7af",
    "Han": r"\u3400-\u4dbf\u4e00-\u9fff",
}
_SCRIPTS = {name: re.compile(f"[{ranges}]") for name, ranges in SCRIPTS.items()}
_LETTERS = re.compile(f"[{''.join(SCRIPTS.values())}]")
# Languages that are written in words, with few signs.
WORDY = ("COBOL", "Fortran", "VBA", "Visual Basic")
_SYLLABIC = frozenset({"Kana", "Hangul", "Han"})

_FENCE = re.compile(
    r"^ {0,3}(`{3,}|~{3,})[ \t]*([^\s`]*)[^\n]*\n(.*?)(?:^ {0,3}\1[ \t]*$|\Z)",
    re.MULTILINE | re.DOTALL,
)
# Half of a pair, as broken JSON has it: no library takes one.
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_SIGNS = re.compile(r"[{}()\[\];=<>_/\\*#&|$@%^~`+]")
_NOT_WORDS = re.compile(r"`[^`\n]*`|https?://\S+|<[^>\n]{1,200}>|\\\w+")


@dataclass(frozen=True, slots=True)
class Found:
    """One part of a text, ``text[start:end]``, and what it is.

    ``could_be`` are the programming languages the part may be in, which detection does not tell
    apart; None and empty mean unknown.
    """

    start: int
    end: int
    kind: Kind
    script: str | None = None
    spoken_language: str | None = None
    programming_language: str | None = None
    could_be: tuple[str, ...] = ()

    def as_json(self) -> list[Any]:
        """The findings as a list, to be kept."""
        return [
            self.start, self.end, self.kind, self.script, self.spoken_language,
            self.programming_language, list(self.could_be),
        ]  # fmt: skip

    @classmethod
    def of_json(cls, kept: list[Any]) -> Found:
        """What :meth:`as_json` gave."""
        start, end, kind, script, spoken, programming, could_be = kept
        return cls(start, end, kind, script, spoken, programming, tuple(could_be))


def detect(text: str) -> tuple[Found, ...]:
    """What the parts of a text are, in order. Prose with fenced code has both as parts of their
    own; a text of nothing but white space has none."""
    text = _LONE_SURROGATE.sub("\ufffd", text)
    return tuple(
        _found(text, start, end, tag)
        for start, end, tag in _parts(text)
        if not text[start:end].isspace()
    )


def script_of(text: str) -> str | None:
    """The script most letters of a text are in, by Unicode range; kana count for the Han around
    them. None without letters."""
    counts = {name: len(letters.findall(text)) for name, letters in _SCRIPTS.items()}
    if counts["Kana"]:
        counts["Kana"] += counts.pop("Han")
    name = max(counts, key=lambda script: counts[script])
    return name if counts[name] else None


def spoken_language(text: str) -> str | None:
    """The ISO 639-1 code of the language most of a text is in; None where it is too short, or
    none is likely enough."""
    sample = _sample(_NOT_WORDS.sub(" ", text))
    letters = _LETTERS.findall(sample)
    fewest = FEWEST_SYLLABLES if script_of(sample) in _SYLLABIC else FEWEST_LETTERS
    if len(letters) < fewest:
        return None
    best = _detector().compute_language_confidence_values(sample)[0]
    if best.value < LEAST_CONFIDENCE:
        return None
    return best.language.iso_code_639_1.name.lower()


def _parts(text: str) -> Iterator[tuple[int, int, str | None]]:
    """The stretches of a text and the tag of each: None outside fences, empty without a tag."""
    position = 0
    for fence in _FENCE.finditer(text):
        if fence.start() > position:
            yield position, fence.start(), None
        yield fence.start(3), fence.end(3), fence[2]
        position = fence.end()
    if position < len(text):
        yield position, len(text), None


def _found(text: str, start: int, end: int, tag: str | None) -> Found:
    part = text[start:end]
    script = script_of(part)
    if tag is None and _is_prose(part):
        return Found(start, end, "prose", script, spoken_language(part))
    if _is_json(part):
        return Found(start, end, "data", script, spoken_language(_SIGNS.sub(" ", part)))
    told = programming_language(part, tag or "")
    if told.is_text and tag is None:
        return Found(start, end, "prose", script, spoken_language(part))
    if told.is_data or told.is_text:
        return Found(start, end, "data", script, spoken_language(_SIGNS.sub(" ", part)))
    could_be = tuple(sorted(told.could_be))
    return Found(start, end, "code", script, None, told.language, could_be)


def _is_prose(part: str) -> bool:
    """Whether a look at the signs in it says that a part is running text."""
    visible = sum(not character.isspace() for character in part)
    signs = len(_SIGNS.findall(part)) / max(1, visible)
    if part.startswith("#!"):
        return False
    if visible < SHORTEST_CODE:
        return True
    if signs >= CODE_ABOVE:
        return False
    if signs < PROSE_BELOW:
        return marked(part, WORDY) is None
    return script_of(part) not in ("Latin", None) and not marked(part, MARKS)


def _is_json(part: str) -> bool:
    if not part.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(part)
    except (ValueError, RecursionError):
        return False
    return True


def _sample(text: str) -> str:
    """A text, or three pieces of a long one."""
    if len(text) <= SAMPLE:
        return text
    piece = SAMPLE // 3
    middle = (len(text) - piece) // 2
    return "\n".join([text[:piece], text[middle : middle + piece], text[-piece:]])


@lru_cache(maxsize=1)
def _detector() -> LanguageDetector:
    from lingua import IsoCode639_1, LanguageDetectorBuilder

    codes = [getattr(IsoCode639_1, code.upper()) for code in LANGUAGES]
    return LanguageDetectorBuilder.from_iso_codes_639_1(*codes).build()

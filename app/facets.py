"""The three facets a calibration row can carry, and their vocabularies.

Spoken languages are ISO 639-1 codes, programming languages are the sixty names of the seed's
calibration set (``calibrate_software_engineer.yaml``), domains are slugs. The vocabularies name
what the product knows how to label; a source may carry a value that is not listed, and it is
shown by its own name.
"""

from __future__ import annotations

from enum import StrEnum


class Facet(StrEnum):
    """A way to look at a calibration set; also the name of the column that holds it."""

    SPOKEN_LANGUAGE = "spoken_language"
    PROGRAMMING_LANGUAGE = "programming_language"
    DOMAIN = "domain"

    @property
    def label(self) -> str:
        """The facet's name as a person reads it: ``Spoken language``."""
        return self.value.replace("_", " ").capitalize()


SPOKEN_LANGUAGES: dict[str, str] = {
    "ar": "Arabic",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "ja": "Japanese",
    "ko": "Korean",
    "pt": "Portuguese",
    "ru": "Russian",
    "tr": "Turkish",
    "zh": "Chinese",
}

PROGRAMMING_LANGUAGES: tuple[str, ...] = (
    "Ada", "Apex", "ARM-64 ASM", "Bash/Shell", "C", "C#", "C++", "Clojure", "COBOL", "Coq",
    "Crystal", "CUDA", "D", "Dart", "Delphi", "Elixir", "Erlang", "F#", "Fortran", "GDScript",
    "GLSL", "Go", "Groovy", "Haskell", "Haxe", "HTML/CSS", "Java", "JavaScript", "Julia", "Kotlin",
    "Lean", "Lisp", "LLVM IR", "Lua", "MATLAB", "Metal", "Nim", "Objective-C", "OCaml", "Perl",
    "PHP", "Pony", "PowerShell", "Prolog", "Python", "R", "Racket", "Ruby", "Rust", "Scala",
    "Solidity", "SQL", "Swift", "TypeScript", "VBA", "Visual Basic", "Vulkan", "x86-64 ASM",
    "Zephyr", "Zig",
)  # fmt: skip

DOMAINS: dict[str, str] = {
    "general-chat": "General chat",
    "reasoning": "Reasoning",
    "multilingual": "Multilingual",
    "tool-use": "Tool use",
    "code": "Code",
    "devops": "DevOps",
    "math": "Math",
    "sciences": "Sciences",
    "medical": "Medical",
    "finance": "Finance",
    "business": "Business",
    "law": "Law",
    "humanities": "Humanities",
    "literature": "Literature",
    "creative-writing": "Creative writing",
    "general-knowledge": "General knowledge",
    "behaviour": "Behaviour",
    "security": "Security",
    "howto": "How-to",
    "software-docs": "Software documentation",
    "misc": "Miscellaneous",
}


def vocabulary(facet: Facet) -> dict[str, str]:
    """The known values of a facet and their labels, in the order they are shown."""
    match facet:
        case Facet.SPOKEN_LANGUAGE:
            return SPOKEN_LANGUAGES
        case Facet.PROGRAMMING_LANGUAGE:
            return {name: name for name in PROGRAMMING_LANGUAGES}
        case Facet.DOMAIN:
            return DOMAINS


def label_of(facet: Facet, value: str) -> str:
    """The label of a value; a value outside the vocabulary is its own label."""
    return vocabulary(facet).get(value, value)

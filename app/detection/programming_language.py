"""The programming language of a piece of code: what it says of itself, its marks, a model.

A fenced block's tag and a ``#!`` line are believed. Otherwise magika (Google 2024, "Magika:
AI-powered content-type detection", arXiv 2409.13768) names a file type, and the marks of
:mod:`app.detection.programming_marks` part what it was not trained to part: to it Crystal is Ruby
and CUDA is C. What stays together is said to be: ``could_be`` holds every language the code may be
in, and a label among them is not contradicted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from app.detection.programming_marks import MARKS, marked
from app.facet_names import TAGS

if TYPE_CHECKING:
    from magika import Magika

# magika's own score: under the first its answer is no answer, from the second on only languages
# that it is known to mistake for this one are asked for their marks.
LEAST_SCORE = 0.5
SURE_SCORE = 0.7
# Marks without a sure model: as many points as other languages hardly ever reach by chance.
MARKS_ALONE = 3
MARKS_AGAINST_MODEL = 8

# A model's label: the language it means, and those it was not trained on and calls by this name.
_C_LIKE = ("C", "C++", "CUDA", "D", "GLSL", "Metal", "Vulkan")
FAMILIES: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "asm": (None, ("ARM-64 ASM", "LLVM IR", "x86-64 ASM")),
    "c": ("C", _C_LIKE),
    "cpp": ("C++", _C_LIKE),
    "dart": ("Dart", ("D",)),
    "groovy": ("Groovy", ("Apex",)),
    "haskell": ("Haskell", ("F#",)),
    "java": ("Java", ("Apex", "D", "Haxe")),
    "javascript": ("JavaScript", ("Apex", "D", "Haxe", "TypeScript")),
    "lisp": ("Lisp", ("Racket",)),
    "ocaml": ("OCaml", ("Coq", "F#", "Lean")),
    "pascal": ("Delphi", ()),
    "prolog": ("Prolog", ("Lean",)),
    "python": ("Python", ("GDScript", "Nim")),
    "ruby": ("Ruby", ("Crystal",)),
    "scala": ("Scala", ("Nim",)),
    "typescript": ("TypeScript", ("Haxe", "JavaScript")),
    "vba": (None, ("VBA", "Visual Basic")),
    "verilog": (None, ("Coq", "Lean")),
    "vhdl": ("Ada", ()),
    **{label: (name, ()) for label, name in {
        "clojure": "Clojure", "cobol": "COBOL", "cs": "C#", "css": "HTML/CSS",
        "elixir": "Elixir", "erlang": "Erlang", "fortran": "Fortran", "go": "Go",
        "html": "HTML/CSS", "julia": "Julia", "kotlin": "Kotlin", "lua": "Lua",
        "matlab": "MATLAB", "objectivec": "Objective-C", "perl": "Perl", "php": "PHP",
        "powershell": "PowerShell", "r": "R", "rust": "Rust", "shell": "Bash/Shell",
        "solidity": "Solidity", "sql": "SQL", "swift": "Swift", "zig": "Zig",
    }.items()},
}  # fmt: skip

# No language of a program: running text, and data.
TEXT_LABELS = frozenset({"txt", "markdown", "rst", "latex", "randomtxt", "po", "srt", "bib"})
DATA_LABELS = frozenset(
    {"json", "jsonl", "yaml", "toml", "xml", "csv", "tsv", "ini", "textproto", "svg", "ipynb"}
)

_SHEBANG = re.compile(r"#!\s*(?:\S*/)?(?:env\s+(?:-\S+\s+)*)?([\w+-]+?)[\d.]*(?:\s|$)")


@dataclass(frozen=True, slots=True)
class Told:
    """What can be told of a piece of code. ``language`` is None where nothing is sure;
    ``could_be`` are the languages it may be in, ``language`` among them; ``is_text`` and
    ``is_data`` when it is no program at all."""

    language: str | None = None
    could_be: frozenset[str] = frozenset()
    is_text: bool = False
    is_data: bool = False


def programming_language(code: str, tag: str = "") -> Told:
    """The programming language of a piece of code; ``tag`` is what its fence calls it."""
    named = TAGS.get(tag.lower()) or _shebang(code)
    if named:
        return Told(named, frozenset({named}))
    everywhere = marked(code, _WITHOUT_FAMILY, MARKS_AGAINST_MODEL)
    if everywhere:
        return Told(everywhere, frozenset({everywhere}))
    label, score = _file_type(code)
    if score >= SURE_SCORE and label in TEXT_LABELS | DATA_LABELS:
        return Told(is_text=label in TEXT_LABELS, is_data=label in DATA_LABELS)
    own, others = FAMILIES.get(label, (None, ()))
    among = others if score >= SURE_SCORE else _WITHOUT_FAMILY.union(others)
    found = marked(code, among) if score >= SURE_SCORE else marked(code, among, MARKS_ALONE)
    if found:
        # CUDA, Metal and code for Vulkan are C++ with something more
        return Told(found, frozenset(others if found == "C++" else {found}))
    if score < LEAST_SCORE or label in TEXT_LABELS | DATA_LABELS:
        return Told(is_text=label in TEXT_LABELS, is_data=label in DATA_LABELS)
    return Told(own, frozenset(others) | ({own} if own else frozenset()))


# C++ has marks to part it from C, which other languages have as well.
_WITHOUT_FAMILY = frozenset(MARKS) - {"C++"}


def _shebang(code: str) -> str | None:
    match = _SHEBANG.match(code)
    return TAGS.get(match[1].lower()) if match else None


def _file_type(code: str) -> tuple[str, float]:
    content = code.encode("utf-8", errors="replace")
    prediction = _model().identify_bytes(content).prediction
    # what the model saw, not what a threshold made of it: the marks have their say below
    label = str(prediction.dl.label)
    return (label if label != "undefined" else str(prediction.output.label)), prediction.score


@lru_cache(maxsize=1)
def _model() -> Magika:
    """The model, read at the first use: it and its runtime take a third of a second to load."""
    from magika import Magika, PredictionMode

    return Magika(prediction_mode=PredictionMode.BEST_GUESS)

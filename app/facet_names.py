"""What the values of the facets are called elsewhere: in labels, fences and file names."""

from __future__ import annotations

from functools import cache

from app.facets import Facet, vocabulary

# Programming languages by the tags of fenced blocks and the interpreters of ``#!`` lines.
TAGS: dict[str, str] = {
    "ada": "Ada", "apex": "Apex", "aarch64": "ARM-64 ASM", "bash": "Bash/Shell",
    "c": "C", "c#": "C#", "c++": "C++", "cc": "C++", "clj": "Clojure", "clojure": "Clojure",
    "cobol": "COBOL", "coq": "Coq", "cpp": "C++", "cr": "Crystal", "crystal": "Crystal",
    "cs": "C#", "csharp": "C#", "css": "HTML/CSS", "cu": "CUDA", "cuda": "CUDA", "d": "D",
    "dart": "Dart", "delphi": "Delphi", "elixir": "Elixir", "erl": "Erlang", "erlang": "Erlang",
    "ex": "Elixir", "exs": "Elixir", "f#": "F#", "f90": "Fortran", "fortran": "Fortran",
    "fs": "F#", "fsharp": "F#", "gd": "GDScript", "gdscript": "GDScript", "glsl": "GLSL",
    "go": "Go", "golang": "Go", "groovy": "Groovy", "haskell": "Haskell", "haxe": "Haxe",
    "hs": "Haskell", "html": "HTML/CSS", "hx": "Haxe", "java": "Java", "javascript": "JavaScript",
    "jl": "Julia", "js": "JavaScript", "jsx": "JavaScript", "julia": "Julia", "kotlin": "Kotlin",
    "kt": "Kotlin", "lean": "Lean", "lean4": "Lean", "lisp": "Lisp", "common-lisp": "Lisp",
    "llvm": "LLVM IR", "lua": "Lua", "luajit": "Lua", "matlab": "MATLAB", "metal": "Metal",
    "nim": "Nim", "node": "JavaScript", "objc": "Objective-C", "objective-c": "Objective-C",
    "objectivec": "Objective-C", "ocaml": "OCaml", "octave": "MATLAB", "pascal": "Delphi",
    "perl": "Perl", "php": "PHP", "pl": "Perl", "pony": "Pony", "powershell": "PowerShell",
    "prolog": "Prolog", "ps1": "PowerShell", "pwsh": "PowerShell", "py": "Python",
    "python": "Python", "python3": "Python", "r": "R", "racket": "Racket", "rb": "Ruby",
    "rs": "Rust", "rscript": "R", "ruby": "Ruby", "rust": "Rust", "scala": "Scala",
    "sh": "Bash/Shell", "shell": "Bash/Shell", "sol": "Solidity", "solidity": "Solidity",
    "sql": "SQL", "swift": "Swift", "swipl": "Prolog", "ts": "TypeScript", "tsx": "TypeScript",
    "typescript": "TypeScript", "vb": "Visual Basic", "vba": "VBA", "vbnet": "Visual Basic",
    "wgsl": "WGSL", "x86asm": "x86-64 ASM", "nasm": "x86-64 ASM", "zig": "Zig",
    "zsh": "Bash/Shell",
}  # fmt: skip

# Programming languages by the suffix of a file, where only one has it.
CODE_SUFFIXES: dict[str, str] = {
    ".adb": "Ada", ".ads": "Ada", ".asm": "x86-64 ASM", ".c": "C", ".cbl": "COBOL",
    ".clj": "Clojure", ".cls": "Apex", ".cob": "COBOL", ".cpp": "C++", ".cr": "Crystal",
    ".cs": "C#", ".cu": "CUDA", ".dart": "Dart", ".erl": "Erlang", ".ex": "Elixir",
    ".f90": "Fortran", ".fs": "F#", ".gd": "GDScript", ".glsl": "GLSL", ".go": "Go",
    ".groovy": "Groovy", ".hs": "Haskell", ".html": "HTML/CSS", ".hx": "Haxe", ".java": "Java",
    ".jl": "Julia", ".js": "JavaScript", ".kt": "Kotlin", ".lean": "Lean", ".lisp": "Lisp",
    ".ll": "LLVM IR", ".lua": "Lua", ".metal": "Metal", ".ml": "OCaml", ".nim": "Nim",
    ".pas": "Delphi", ".php": "PHP", ".pony": "Pony", ".ps1": "PowerShell", ".py": "Python",
    ".rb": "Ruby", ".rkt": "Racket", ".rs": "Rust", ".scala": "Scala", ".sh": "Bash/Shell",
    ".sol": "Solidity", ".sql": "SQL", ".swift": "Swift", ".ts": "TypeScript",
    ".vb": "Visual Basic", ".zig": "Zig",
}  # fmt: skip

# Names people use in labels that are neither a value, its label nor a tag.
_OTHER_NAMES: dict[Facet, dict[str, str]] = {
    Facet.SPOKEN_LANGUAGE: {
        "ara": "ar", "deu": "de", "eng": "en", "fra": "fr", "heb": "he", "hin": "hi",
        "jpn": "ja", "kor": "ko", "por": "pt", "rus": "ru", "spa": "es", "tur": "tr", "zho": "zh",
    },
    Facet.PROGRAMMING_LANGUAGE: {
        **TAGS, "assembly": "x86-64 ASM", "c sharp": "C#", "common lisp": "Lisp", "f sharp": "F#",
        "objective c": "Objective-C", "python 3": "Python", "vb.net": "Visual Basic",
        "visual basic .net": "Visual Basic",
    },
    Facet.DOMAIN: {"coding": "code", "programming": "code", "chat": "general-chat"},
}  # fmt: skip


def known_value(facet: Facet, label: str) -> str:
    """The vocabulary's value for a label in any case (``python`` → ``Python``, ``German`` →
    ``de``); a label it does not know stays."""
    key = label.strip().lower()
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

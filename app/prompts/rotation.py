"""Which value a prompt names for which row: a stratified seeded rotation.

The seed's method picks by ``hash(row|string) % 60`` with Python's salted hash: another mix in
every run, and on average 7 of 60 languages are never drawn. Here the rows, in a seeded order, are
dealt the values in a seeded order like cards: of n rows each of k values gets n/k, rounded down or
up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jinja2 import TemplateError, nodes

from app.facets import PROGRAMMING_LANGUAGES, SPOKEN_LANGUAGES, Facet
from app.prompts.sandbox import PromptRefused
from app.prompts.template import ENVIRONMENT

# What people call a language otherwise than the vocabulary does; compared in lower case.
OTHER_NAMES = {
    "bash": "Bash/Shell", "shell": "Bash/Shell", "sh": "Bash/Shell", "golang": "Go",
    "js": "JavaScript", "ts": "TypeScript", "html": "HTML/CSS", "css": "HTML/CSS", "cpp": "C++",
    "csharp": "C#", "c sharp": "C#", "fsharp": "F#", "objective c": "Objective-C",
    "common lisp": "Lisp", "x86 asm": "x86-64 ASM", "arm64 asm": "ARM-64 ASM", "rocq": "Coq",
    "vb": "Visual Basic", "visual basic .net": "Visual Basic", "python3": "Python",
}  # fmt: skip


def rotation(row_ids: Sequence[str], values: Sequence[str], seed: int) -> list[str]:
    """The value of each row, in the order the rows are given.

    Depends on the ids and the seed alone: neither on the order of the rows or of the values, nor
    on the process. Raises ValueError without values.
    """
    if not values:
        raise ValueError("a rotation needs at least one value")
    dealt = sorted(set(values), key=lambda value: _rank(seed, "value", value))
    order = sorted(range(len(row_ids)), key=lambda at: _rank(seed, "row", row_ids[at]))
    given = [""] * len(row_ids)
    for turn, at in enumerate(order):
        given[at] = dealt[turn % len(dealt)]
    return given


def _rank(seed: int, kind: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{kind}\0{name}".encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True)
class HashedChoice:
    """A pick from a list by the hash of the row, as the seed's templates make it.

    ``text`` is the template with ``{{ value }}`` in its place; ``values`` are the facet's
    (``ar``), ``unmapped`` those among them that its vocabulary does not have; ``never`` the names
    that its modulus leaves out.
    """

    text: str
    facet: Facet
    values: tuple[str, ...]
    unmapped: tuple[str, ...]
    never: tuple[str, ...]


def hashed_choice(source: str) -> HashedChoice | None:
    """The pick of a template, or None where it makes none, or more than one.

    Found in the template's tree, whatever its spaces and quotes. Raises PromptRefused when the
    modulus is larger than the list.
    """
    pieces, found = [], []
    try:
        for text, is_expression in expressions(source):
            picked = _picked(text) if is_expression else None
            pieces.append("{{ value }}" if picked else text)
            found += [picked] if picked else []
    except (TemplateError, RecursionError, ValueError):
        return None
    if len(found) != 1:
        return None
    names, modulus = found[0]
    facet = facet_of_names(names)
    drawn, never = names[:modulus], names[modulus:]
    values = tuple(dict.fromkeys(value_of_name(facet, name) for name in drawn))
    return HashedChoice(
        text="".join(pieces),
        facet=facet,
        values=values,
        unmapped=tuple(value for value in values if not is_known(facet, value)),
        never=tuple(never),
    )


def facet_of_names(names: Sequence[str]) -> Facet:
    """The language facet that knows most of some names."""
    spoken = sum(
        is_known(Facet.SPOKEN_LANGUAGE, value_of_name(Facet.SPOKEN_LANGUAGE, name))
        for name in names
    )
    return Facet.SPOKEN_LANGUAGE if 2 * spoken > len(names) else Facet.PROGRAMMING_LANGUAGE


def value_of_name(facet: Facet, name: str) -> str:
    """The facet's value for a name as people write it (``Arabic`` → ``ar``, ``Cobol`` →
    ``COBOL``); the name itself where the vocabulary has none."""
    return _BY_NAME[facet].get(name.strip().casefold(), name.strip())


def is_known(facet: Facet, value: str) -> bool:
    """Whether the facet's vocabulary has a value."""
    return value in (SPOKEN_LANGUAGES if facet is Facet.SPOKEN_LANGUAGE else PROGRAMMING_LANGUAGES)


_BY_NAME: dict[Facet, dict[str, str]] = {
    Facet.SPOKEN_LANGUAGE: {
        **{code: code for code in SPOKEN_LANGUAGES},
        **{name.casefold(): code for code, name in SPOKEN_LANGUAGES.items()},
    },
    Facet.PROGRAMMING_LANGUAGE: {
        **OTHER_NAMES,
        **{name.casefold(): name for name in PROGRAMMING_LANGUAGES},
    },
}


def expressions(source: str) -> Iterator[tuple[str, bool]]:
    """The source cut into ``{{ … }}`` expressions (True) and what stands between them."""
    inside: list[str] | None = None
    for _, kind, text in ENVIRONMENT.lex(source):
        if kind == "variable_begin":
            inside = [text]
        elif inside is None:
            yield text, False
        else:
            inside.append(text)
            if kind == "variable_end":
                yield "".join(inside), True
                inside = None


def _picked(text: str) -> tuple[list[str], int] | None:
    """The names and the modulus of ``{{ [names][hash(row…) % n] }}``."""
    match ENVIRONMENT.parse(text).body:
        case [nodes.Output(nodes=[nodes.Getitem() as pick])]:
            return _names_and_modulus(pick)
    return None


def _names_and_modulus(pick: nodes.Getitem) -> tuple[list[str], int] | None:
    if not isinstance(pick.node, nodes.List) or not isinstance(pick.arg, nodes.Mod):
        return None
    names = [item.value for item in pick.node.items if isinstance(item, nodes.Const)]
    call, modulus = pick.arg.left, pick.arg.right
    is_hash = (
        isinstance(call, nodes.Call)
        and isinstance(call.node, nodes.Name)
        and call.node.name == "hash"
    )
    if not is_hash or not isinstance(modulus, nodes.Const) or not isinstance(modulus.value, int):
        return None
    complete = len(names) == len(pick.node.items) and all(isinstance(n, str) for n in names)
    if not names or not complete or modulus.value < 1:
        return None
    if modulus.value > len(names):
        raise PromptRefused(
            f"The template picks from {len(names)} names by % {modulus.value}, past their end: "
            f"write % {len(names)}."
        )
    return names, modulus.value

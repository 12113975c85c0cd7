"""YAML with the line every value stands on, held to limits before anything is built of it.

A file of a stranger may nest ten thousand levels, name one key twice, or unfold a few aliases to
millions of values ("billion laughs"). Each of these is a ``yaml.YAMLError`` with its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import yaml

from app.errors import Refused

Place = tuple[str | int, ...]

MAX_BYTES = 500_000
MAX_DEPTH = 40
MAX_VALUES = 50_000  # with aliases unfolded

if TYPE_CHECKING:
    _Fastest = yaml.SafeLoader
else:  # the one of libyaml where PyYAML was built with it
    _Fastest = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# What YAML calls a number or a date and Python cannot read: 2024-99-99, !!int x.
_UNREADABLE = (ValueError, TypeError, OverflowError, AttributeError, LookupError)


class _Loader(_Fastest):
    """The safe loader, whose every failure has a place."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except _UNREADABLE as error:
            raise _error(f"this value cannot be read: {error}", node.start_mark) from error


class Dumper(yaml.SafeDumper):
    """Writes every text so that it is read back as it was: what has line breaks or other signs
    that are not seen stands in double quotes, escaped."""

    def represent_text(self, data: str) -> yaml.Node:
        """A text."""
        style = None if data.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


Dumper.add_representer(str, Dumper.represent_text)


def dump(document: Any, dumper: type[Dumper] = Dumper) -> str:
    """A document as YAML, its keys in their order."""
    return yaml.dump(document, Dumper=dumper, sort_keys=False, allow_unicode=True, width=1_000_000)


def load_with_lines(text: str) -> tuple[Any, dict[Place, int]]:
    """The document, and the line (from 1) of every key and list item by its path.

    Raises ``yaml.YAMLError`` for text that is not one YAML document, a key that stands twice in
    its mapping, and what passes the limits above.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair, from JSON
        raise yaml.YAMLError(f"character {error.start + 1} is no character of UTF-8") from error
    _hold_to_limits(text)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, {}
        lines: dict[Place, int] = {}
        _note(loader, node, (), lines)
        return loader.construct_document(node), lines
    finally:
        loader.dispose()


def decoded(content: bytes, where: str) -> str:
    """A YAML file's text: UTF-8, or UTF-16 with its mark. Raises Refused with what is wrong."""
    if len(content) > MAX_BYTES:
        raise Refused(
            f"{where} has {len(content):,} bytes; a file like this has at most {MAX_BYTES:,}."
        )
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        wrong = f"byte 0x{content[error.start]:02x} is not {error.encoding.upper()}"
        raise Refused(f"{where}, line {line}: {wrong}; save the file as UTF-8 text.") from error


def sentence(error: yaml.YAMLError, where: str, text: str) -> str:
    """What is wrong with a YAML text, with the line and column."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    context = getattr(error, "context", None)
    said = f"{problem}, {context}" if context else str(problem)
    if mark is not None:
        return f"{where}, line {mark.line + 1}, column {mark.column + 1}: {said}."
    position = getattr(error, "position", None)
    if position is None:
        return f"{where}: {said}."
    before = text[:position]
    column = position - before.rfind("\n")
    return f"{where}, line {before.count(chr(10)) + 1}, column {column}: {said}."


def multiline_scalars(text: str) -> Iterator[range]:
    """The lines (from 1) of each text that goes over several: what begins with ``#`` there is no
    comment. Raises ``yaml.YAMLError``."""
    for event in yaml.parse(text, Loader=_Fastest):
        if not isinstance(event, yaml.ScalarEvent):
            continue
        start, end = event.start_mark, event.end_mark
        if start is not None and end is not None and end.line > start.line:
            yield range(start.line + 1, end.line + 1 + (end.column > 0))


def _hold_to_limits(text: str) -> None:
    """Look at the events alone, which need neither recursion nor memory."""
    sizes: dict[str, int] = {}
    # for each open collection its anchor and how many values it holds, aliases unfolded
    opened: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, Loader=_Fastest):
        size = 1
        if isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, 1))
            if len(opened) > MAX_DEPTH:
                raise _error(f"it is nested more than {MAX_DEPTH} levels deep", event.start_mark)
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = opened.pop()
            if anchor:
                sizes[anchor] = size
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in opened):
                raise _error(f"*{event.anchor} stands inside of what it names", event.start_mark)
            size = sizes.get(event.anchor or "", 1)
        elif isinstance(event, yaml.ScalarEvent):
            if event.anchor:
                sizes[event.anchor] = 1
        else:
            continue
        anchor, held = opened[-1]
        opened[-1] = (anchor, held + size)
        if held + size > MAX_VALUES:
            raise _error(f"it unfolds to more than {MAX_VALUES:,} values", event.start_mark)


def _note(loader: _Loader, node: yaml.Node, place: Place, lines: dict[Place, int]) -> None:
    lines.setdefault(place, _line(node))
    if isinstance(node, yaml.MappingNode):
        _refuse_repeated(node)
        loader.flatten_mapping(node)  # what "<<: *defaults" brings, at the line it stands on
        for key, value in node.value:
            inner = (*place, str(key.value))
            lines[inner] = _line(key)
            _note(loader, value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for at, value in enumerate(node.value):
            _note(loader, value, (*place, at), lines)


def _refuse_repeated(node: yaml.MappingNode) -> None:
    first: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        if key.value in first:
            raise _error(
                f"the key {key.value!r} stands on line {first[key.value]} already", key.start_mark
            )
        first[key.value] = _line(key)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _error(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(None, None, problem, mark)

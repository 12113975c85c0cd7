"""YAML with the line every value stands on."""

from __future__ import annotations

from typing import Any

import yaml

Place = tuple[str | int, ...]


def load_with_lines(text: str) -> tuple[Any, dict[Place, int]]:
    """The document, and the line (from 1) of every key and list item by its path.

    Raises ``yaml.YAMLError``.
    """
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    lines: dict[Place, int] = {}
    if node is not None:
        _note(node, (), lines)
    return yaml.safe_load(text), lines


def _note(node: yaml.Node, place: Place, lines: dict[Place, int]) -> None:
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, str(key.value))
            lines[inner] = key.start_mark.line + 1
            _note(value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for at, value in enumerate(node.value):
            _note(value, (*place, at), lines)

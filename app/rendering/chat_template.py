"""A model's chat template: Jinja from a stranger, run in a sandbox, the same on every day.

The environment is that of ``transformers.utils.chat_template_utils`` (blocks trimmed, loop
controls, ``tojson`` without HTML escapes, ``raise_exception``, ``strftime_now``, ``generation``
blocks), with two differences: the date is fixed, since a set must be the same tomorrow, and a
render that is too long or too slow is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from app.base_models.model_files import read_json
from app.errors import ModelRefused, Refused

# What templates that print today's date are given; in the manifest of every set.
TEMPLATE_DATE = datetime(2026, 1, 1)
MAX_CHARACTERS = 16_000_000
MAX_SECONDS = 20.0

Message = Mapping[str, Any]

# Of a message: content of several parts may have one that is called thinking too.
_READS_THINKING = re.compile(
    r"""\bmessage\.thinking\b|\bmessage\[["']thinking["']\]|["']thinking["'] in message\b"""
)

# What a template's own code can raise: its refusals, and the mistakes of its expressions.
_TEMPLATE_FAILURES = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class RowRefused(Refused):
    """A conversation the template will not render; the row is set aside with the reason."""


@dataclass(frozen=True)
class ChatTemplate:
    """The Jinja source of a chat template and the special tokens it may name."""

    source: str
    special_tokens: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """Hash of the source and the special tokens, all that its output depends on."""
        content = json.dumps([self.source, dict(self.special_tokens)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def reasoning_field(self) -> str | None:
        """The field of a message from which the template takes reasoning apart from the words:
        ``reasoning_content``, or ``thinking`` (gpt-oss); None where it reads neither."""
        if "reasoning_content" in self.source:
            return "reasoning_content"
        return "thinking" if _READS_THINKING.search(self.source) else None

    @cached_property
    def _compiled(self) -> Template:
        try:
            return _environment().from_string(self.source)
        except TemplateError as error:
            raise ModelRefused(f"The chat template is not valid Jinja: {error}.") from error

    def render(self, messages: Sequence[Message]) -> str:
        """The conversation as the model's text.

        Raises RowRefused with the template's own words when it refuses the conversation.
        """
        pieces: list[str] = []
        size, deadline = 0, time.monotonic() + MAX_SECONDS
        try:
            for piece in self._compiled.generate(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=False,
                **self.special_tokens,
            ):
                pieces.append(piece)
                size += len(piece)
                if size > MAX_CHARACTERS or time.monotonic() > deadline:
                    raise RowRefused(
                        f"the chat template wrote {size:,} characters or took longer than "
                        f"{MAX_SECONDS:.0f} seconds for one row"
                    )
        except _TEMPLATE_FAILURES as error:
            raise RowRefused(f"the chat template refused it: {error}") from error
        return "".join(pieces)


def load_chat_template(directory: Path) -> ChatTemplate:
    """The chat template of a model directory.

    ``chat_template.jinja`` comes before ``tokenizer_config.json``, as in transformers; of several
    named templates the one called ``default`` is taken. Raises ModelRefused when there is none.
    """
    config = read_json(directory / "tokenizer_config.json")
    special_tokens = special_tokens_of(directory, config)
    file = directory / "chat_template.jinja"
    if file.is_file():
        return ChatTemplate(file.read_text(encoding="utf-8"), special_tokens)
    source = _default_template(config.get("chat_template"))
    if source is None:
        raise ModelRefused(
            f"{directory} has no chat template: put a chat_template.jinja beside its tokenizer, "
            "or use the instruct version of the model."
        )
    return ChatTemplate(source, special_tokens)


def special_tokens_of(directory: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """``bos_token``, ``eos_token`` and their like, by name, as the tokenizer's files give them."""
    named = {**read_json(directory / "special_tokens_map.json"), **config}
    tokens: dict[str, str] = {}
    for name, value in sorted(named.items()):
        content = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(content, str):
            tokens[name] = content
    return tokens


def _default_template(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        named = {entry["name"]: entry["template"] for entry in value if isinstance(entry, dict)}
        default = named.get("default")
        return default if isinstance(default, str) else None
    return None


class _GenerationTag(Extension):
    """``{% generation %}`` marks the assistant's words for training; here it is transparent."""

    tags = {"generation"}  # noqa: RUF012, declared so by jinja2.ext.Extension

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = TEMPLATE_DATE.strftime
    return environment


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter writes ``<`` as ``\\u003c``: a model has not learnt that."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )

"""Prompts: the words put before a row, from a Jinja template of the person's own.

A template may use ``row`` (the row's fields) and ``value`` (what the rotation assigned to it, as a
person reads it: ``Arabic``). It is run in ``app.prompts.sandbox``, whose limits hold
for every row anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError, meta

from app.prompts.sandbox import Meter, PromptEnvironment, PromptRefused, meter

MAX_TEMPLATE = 20_000
MAX_OUTPUT = 1_000_000
NAMES = frozenset({"row", "value"})

# What the expressions of a template can raise.
_FAILURES = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)

ENVIRONMENT = PromptEnvironment()


class PromptTemplate:
    """A template that is valid. Raises PromptRefused, with the line, when ``source`` is not."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._compiled = _compiled(source)

    def render(self, row: Mapping[str, Any], value: str | None = None) -> str:
        """The prompt of one row, as it is written, nothing escaped.

        ``value`` stays undefined when it is None. Raises PromptRefused for a template that fails
        on the row, writes more than ``MAX_OUTPUT`` characters, or does not end in its limits.
        """
        given: dict[str, Any] = {"row": dict(row)} | ({} if value is None else {"value": value})
        pieces: list[str] = []
        size, used = 0, Meter()
        token = meter.set(used)
        try:
            for piece in self._compiled.generate(given):
                used.tick()
                size += len(piece)
                if size > MAX_OUTPUT:
                    raise PromptRefused(
                        f"the prompt template writes more than {MAX_OUTPUT:,} characters"
                    )
                pieces.append(piece)
        except _FAILURES as error:
            raise PromptRefused(f"the prompt template fails: {error}") from error
        finally:
            meter.reset(token)
        return "".join(pieces)


@lru_cache(maxsize=512)
def _compiled(source: str) -> Template:
    if len(source) > MAX_TEMPLATE:
        raise PromptRefused(
            f"A prompt template has at most {MAX_TEMPLATE:,} characters, this one {len(source):,}."
        )
    try:
        tree = ENVIRONMENT.compile_prompt(source)
        unknown = meta.find_undeclared_variables(tree) - NAMES - set(ENVIRONMENT.globals)
        if unknown:
            raise PromptRefused(
                f"The prompt template uses {sorted(unknown)[0]!r}: there are row and value."
            )
        return ENVIRONMENT.from_string(tree)
    except TemplateSyntaxError as error:
        reason = (error.message or "").rstrip(".")
        raise PromptRefused(
            f"The prompt template is not valid, line {error.lineno}: {reason}."
        ) from error
    except (RecursionError, MemoryError, SyntaxError, ValueError, TypeError) as error:
        # nested too deeply for Python, or a literal it will not read
        raise PromptRefused(f"The prompt template cannot be compiled: {error}.") from error

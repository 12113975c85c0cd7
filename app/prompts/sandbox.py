"""The Jinja environment of prompt templates: sandboxed, unescaped, and every step counted.

A template of a stranger may loop or multiply strings. Jinja's sandbox keeps it from Python's
insides, not from using up time and memory, so here

- only some nodes, filters, functions and methods exist, none whose work is more than about
  linear in the size of its values;
- no value grows past ``MAX_VALUE``: operators are held to it before they work, literals, filters
  and calls after (that is also how ``[x, x]`` nested a hundred times is stopped);
- each loop step, operator, filter, call and literal is counted against ``MAX_STEPS`` and the
  clock. Between two of them little can happen, so the time limit holds without a thread or a
  signal.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from app.errors import Refused

MAX_STEPS = 100_000
MAX_SECONDS = 2.0
MAX_VALUE = 4_000_000  # characters and items of one value, all it holds counted
MAX_INTEGER_BITS = 4_096

NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Const, nodes.Name, nodes.List,
    nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Keyword, nodes.Getitem, nodes.Getattr, nodes.Slice,
    nodes.Filter, nodes.Test, nodes.Call, nodes.Compare, nodes.Operand, nodes.And, nodes.Or,
    nodes.Not, nodes.Neg, nodes.Pos, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv,
    nodes.Mod, nodes.Pow, nodes.Concat, nodes.CondExpr, nodes.If, nodes.For, nodes.Assign,
)  # fmt: skip
METHODS = frozenset(
    {
        "capitalize", "count", "endswith", "find", "get", "index", "isalnum", "isalpha", "isdigit",
        "items", "keys", "lower", "lstrip", "rstrip", "split", "splitlines", "startswith", "strip",
        "title", "upper", "values",
    }
)  # fmt: skip
# Jinja's own, as they are.
FILTERS = (
    "abs", "capitalize", "count", "d", "default", "first", "float", "int", "last", "length",
    "list", "lower", "max", "min", "reverse", "round", "sort", "string", "title", "trim",
    "truncate", "unique", "upper", "wordcount",
)  # fmt: skip


class PromptRefused(Refused):
    """A prompt template that cannot be used, or that one row makes fail."""


class Meter:
    """What one render has used of its steps and its time."""

    def __init__(self) -> None:
        self.steps = 0
        self.deadline = time.monotonic() + MAX_SECONDS

    def tick(self) -> None:
        """Count a step. Raises PromptRefused past the limits."""
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise PromptRefused(f"the prompt template takes more than {MAX_STEPS:,} steps")
        if time.monotonic() > self.deadline:
            raise PromptRefused(f"the prompt template takes longer than {MAX_SECONDS:g} seconds")


# Not set while a template is compiled, so that nothing is worked out then.
meter: ContextVar[Meter] = ContextVar("prompt_meter")


def stable_hash(value: object) -> int:
    """What ``hash`` gives in a prompt: 63 bits of the SHA-256 of the value's text, on every
    machine and in every process the same. Python's own is salted anew in every process."""
    digest = hashlib.sha256(str(value).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class PromptEnvironment(ImmutableSandboxedEnvironment):
    """See the module. ``autoescape`` is off: a prompt is no HTML, and ``<`` must stay ``<``."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            autoescape=False,
            optimized=False,
            keep_trailing_newline=True,
        )
        jinjas: dict[str, Callable[..., Any]] = {name: self.filters[name] for name in FILTERS}
        self.filters.clear()
        self.filters.update({name: _measured(function) for name, function in jinjas.items()})
        own: dict[str, Callable[..., Any]] = {
            "join": _join, "replace": _replace, "sum": _sum, "tojson": _tojson, "safe": _same,
            "_sized": _same,
        }  # fmt: skip
        self.filters.update({name: _measured(function) for name, function in own.items()})
        self.filters["_counted"] = _counted
        self.globals.clear()
        self.globals.update(FUNCTIONS)

    def compile_prompt(self, source: str) -> nodes.Template:
        """The tree of a template, checked and with its guards.

        Raises TemplateSyntaxError, and SecurityError for what prompts may not use.
        """
        tree = self.parse(source)
        for node in tree.find_all(nodes.Node):
            _refuse_unknown(node)
        guarded = _Guards().visit(tree)
        assert isinstance(guarded, nodes.Template)
        return guarded

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An operator between two values, refused where its result would be too large."""
        meter.get().tick()
        _refuse_growth(operator, left, right)
        return sized(super().call_binop(context, operator, left, right))

    def call(  # the names keep out of the way of keyword arguments
        __self,  # noqa: N805
        __context: Context,
        __obj: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """A call of one of the functions or methods that prompts may use."""
        meter.get().tick()
        if not _is_callable_in_prompts(__obj):
            name = getattr(__obj, "__name__", type(__obj).__name__)
            raise SecurityError(f"{name!r} cannot be called in a prompt")
        return sized(super().call(__context, __obj, *args, **kwargs))


def sized(value: Any) -> Any:
    """The value, an iterator as a list. Raises PromptRefused where it holds too much."""
    if isinstance(value, Iterator) or type(value) in _VIEWS:
        value = list(value)
    if not _fits(value):
        raise PromptRefused(f"the prompt template makes a value of more than {MAX_VALUE:,} items")
    return value


_VIEWS: tuple[type, ...] = (type({}.items()), type({}.keys()), type({}.values()))


def _fits(value: Any) -> bool:
    """Whether a value, with all it holds, stays in the limits."""
    left, waiting = MAX_VALUE, [value]
    while waiting and left >= 0:
        one = waiting.pop()
        if isinstance(one, int):
            left -= 1
            if one.bit_length() > MAX_INTEGER_BITS:
                return False
        elif isinstance(one, str | bytes | range):
            left -= len(one) + 1
        elif isinstance(one, list | tuple | set | frozenset | dict):
            left -= len(one) + 1
            if left >= 0:
                waiting.extend(one.values() if isinstance(one, dict) else one)
        else:
            left -= 1
    return left >= 0


def _refuse_growth(operator: str, left: Any, right: Any) -> None:
    if operator == "%" and isinstance(left, str | bytes):
        raise PromptRefused("the prompt template uses % on a text, which prompts may not: use ~")
    for content, times in ((left, right), (right, left)):
        if operator == "*" and isinstance(content, str | bytes | list | tuple):
            if isinstance(times, int) and len(content) * times > MAX_VALUE:
                raise PromptRefused(f"the prompt template repeats a value {times:,} times")
            return
    if operator in ("*", "**") and isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * (abs(right) if operator == "**" else 1) + right.bit_length()
        if bits > MAX_INTEGER_BITS:
            raise PromptRefused("the prompt template makes a number of more than a thousand digits")


def _refuse_unknown(node: nodes.Node) -> None:
    kind = type(node).__name__
    if not isinstance(node, NODES):
        raise TemplateSyntaxError(f"{kind} is not something prompts may use", node.lineno)
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        try:
            node.value.encode()
        except UnicodeEncodeError:
            raise TemplateSyntaxError("half of a character (\\ud800)", node.lineno) from None
    if isinstance(node, nodes.For) and node.recursive:
        raise TemplateSyntaxError("a recursive loop is not allowed in prompts", node.lineno)


class _Guards(NodeTransformer):
    """Puts a measure around each literal and a counter into each loop."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
        self.generic_visit(node)
        node.iter = _filter("_counted", node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # noqa: N802
        """``a ~ b`` as an addition of texts, which is measured."""
        self.generic_visit(node)
        first, *others = (_filter("string", each) for each in node.nodes)
        joined: nodes.Expr = first
        for each in others:
            joined = nodes.Add(joined, each, lineno=node.lineno)
        return joined

    def _sized(self, node: nodes.Expr) -> nodes.Expr:
        self.generic_visit(node)
        return _filter("_sized", node) if getattr(node, "ctx", "load") == "load" else node

    # a tuple is a target as well as a value: "for a, b in", "set a, b ="
    visit_List = visit_Tuple = visit_Dict = _sized  # noqa: N815


def _filter(name: str, node: nodes.Node) -> nodes.Filter:
    assert isinstance(node, nodes.Expr)
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _measured(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that counts as a step and whose result is measured."""

    def measured(*args: Any, **kwargs: Any) -> Any:
        meter.get().tick()
        return sized(function(*args, **kwargs))

    # what Jinja hands it first (environment, context) is marked on the function
    measured.__dict__.update(getattr(function, "__dict__", {}))
    return measured


def _counted(values: Iterable[Any]) -> Iterator[Any]:
    """A loop's values, each a step."""
    for value in values:
        meter.get().tick()
        yield value


def _is_callable_in_prompts(function: Any) -> bool:
    if any(function is known for known in FUNCTIONS.values()):
        return True
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if isinstance(owner, LoopContext):
        return name in ("cycle", "changed")
    return isinstance(owner, str | list | tuple | dict) and name in METHODS


def _same(value: Any) -> Any:
    return value


def _join(values: Iterable[Any], separator: str = "") -> str:
    texts = [str(value) for value in values]
    if sum(map(len, texts)) + len(texts) * len(separator) > MAX_VALUE:
        raise PromptRefused("the prompt template joins more text than fits")
    return separator.join(texts)


def _replace(text: object, old: str, new: str) -> str:
    whole = str(text)
    if len(whole) + whole.count(old) * len(new) > MAX_VALUE:
        raise PromptRefused("the prompt template replaces to more text than fits")
    return whole.replace(old, new)


def _sum(values: Iterable[Any], start: float = 0) -> float:
    """The sum of numbers; lists are not added up, which would take quadratic time."""
    numbers = list(values)
    if not all(isinstance(number, int | float) for number in [*numbers, start]):
        raise TypeError("sum takes numbers")
    return sum(numbers, start)


def _tojson(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(range(*bounds)[: MAX_STEPS + 1]) > MAX_STEPS:  # len() of a longer one overflows
        raise PromptRefused(f"the prompt template asks for a range of more than {MAX_STEPS:,}")
    return numbers


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": abs,
    "enumerate": lambda values, start=0: list(enumerate(values, start)),
    "hash": stable_hash,
    "len": len,
    "max": max,
    "min": min,
    "range": _range,
    "sorted": sorted,
    "sum": _sum,
    "zip": lambda *columns: list(zip(*columns, strict=False)),
}

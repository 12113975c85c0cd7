"""What is wrong with a value that a model refuses: its place, and what would be right."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from app.errors import Refused
from app.nearest import nearest

Place = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)

SHOWN = 60
WORD = re.compile(r"\w+")

# What is wrong with a value and what would be right, by the kind of pydantic's complaint; in
# braces are the limits it names.
_WORDS = {
    "greater_than_equal": ("is too small", "give at least {ge}"),
    "greater_than": ("is too small", "give more than {gt}"),
    "less_than_equal": ("is too large", "give at most {le}"),
    "less_than": ("is too large", "give less than {lt}"),
    "string_too_short": ("is too short", "give at least {min_length} characters"),
    "string_too_long": ("is too long", "give at most {max_length} characters"),
    "too_short": ("has too few", "give at least {min_length}"),
    "too_long": ("has too many", "give at most {max_length}"),
    "finite_number": ("has no end", "give a finite number"),
    "int_from_float": ("has a fraction", "give a whole number"),
    "int_parsing_size": ("is too large", "give a smaller whole number"),
    "literal_error": ("is not known", "give {expected}"),
    "enum": ("is not known", "give {expected}"),
    "union_tag_invalid": ("is not known", "give {discriminator} as one of {expected_tags}"),
    "union_tag_not_found": ("does not say what it is", "give {discriminator}"),
    "string_pattern_mismatch": ("does not fit", "give what matches {pattern}"),
    "missing": ("", "it is missing"),
}
_TYPES = {
    "string": "a text", "bool": "true or false", "int": "a whole number", "float": "a number",
    "list": "a list", "tuple": "a list", "dict": "keys with values", "model": "keys with values",
}  # fmt: skip


def validated(model: type[M], document: Any) -> M:
    """A document as a model. Raises Refused with the first thing that is wrong and its place."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise Refused(placed_problem(error, model)) from error


def placed_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing that is wrong with a document that ``model`` refused, as a sentence that
    begins with its place."""
    place, said = first_problem(error, model)
    return f"{listed(place)}: {said}." if place else f"{said}."


def first_problem(error: ValidationError, model: type[BaseModel]) -> tuple[Place, str]:
    """The place of the first thing that is wrong with a document that ``model`` refused, and what
    is to be said of it, without a full stop."""
    problems = error.errors(include_url=False)
    if problems[0]["type"] == "extra_forbidden":
        *owner, name = problems[0]["loc"]
        place = _place(owner)
        near = nearest(str(name), _fields_at(model, place))
        return (*place, name), f"there is no such field{near}"
    place = _place(problems[0]["loc"])
    same = [one for one in problems if _place(one["loc"]) == place]
    return place, in_words(same)


def in_words(problems: Sequence[ErrorDetails]) -> str:
    """What is wrong at one place, where each kind of a union has its complaint, and what would be
    right."""
    first = problems[0]
    if first["type"] == "value_error":
        return str(first["msg"]).removeprefix("Value error, ").rstrip(".")
    wrong, right = _words(first)
    others = (_words(one)[1].removeprefix("give ") for one in problems[1:])
    right = " or ".join(dict.fromkeys((right, *others)))
    return f"{shown(first['input'])} {wrong}: {right}" if wrong else right


def listed(place: Sequence[str | int]) -> str:
    """A place as it is written: ``slices.2.rows``; keys that are no word in quotes."""
    return ".".join(shown(step, quotes=not WORD.fullmatch(str(step))) for step in place)


def shown(value: Any, quotes: bool = True) -> str:
    """A value as a sentence can show it, shortened."""
    text = str(value) if not isinstance(value, int) or value.bit_length() < 200 else "a huge number"
    short = text if len(text) <= SHOWN else text[: SHOWN - 3] + "…"
    return repr(short) if quotes and isinstance(value, str) else short


def kind(value: Any) -> str:
    """What a value is, in words."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int():
            return "a whole number"
        case float():
            return "a number"
        case str():
            return "a text"
        case list() | tuple():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return f"a {type(value).__name__}"


def _place(steps: Iterable[str | int]) -> Place:
    """A place without the names that pydantic gives the choices of a union."""
    return tuple(one for one in steps if isinstance(one, int) or WORD.fullmatch(one))


def _words(problem: ErrorDetails) -> tuple[str, str]:
    complaint = problem["type"]
    if complaint in _WORDS:
        wrong, right = _WORDS[complaint]
        limits = {name: _number(value) for name, value in problem.get("ctx", {}).items()}
        if limits.get("min_length") == "1" and complaint == "string_too_short":
            return "is empty", "give a text"
        return wrong, right.format(**limits)
    about, _, what = complaint.partition("_")
    if about in _TYPES and what.endswith(("type", "parsing")):
        return f"is {kind(problem['input'])}", f"give {_TYPES[about]}"
    return "cannot be used", problem["msg"][:1].lower() + problem["msg"][1:]


def _number(value: Any) -> Any:
    """A limit as people write it: 1,048,576 and 0 instead of 0.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{value:,}" if isinstance(value, int) else value


def _fields_at(model: type[BaseModel], place: Place) -> Iterable[str]:
    """The fields of the model at a place inside another; none where a union may hold several."""
    for step in place:
        if isinstance(step, int):
            continue
        field = model.model_fields.get(step)
        inner = list(_models_in(field.annotation)) if field else []
        if len(inner) != 1:
            return ()
        model = inner[0]
    return model.model_fields


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)

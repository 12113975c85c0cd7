from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from app.calibration.spec import SetSpec
from app.sources.entry import SourceEntry
from app.validation import first_problem, listed, shown

PART = {"name": "a", "rows": 1}
HUB = {"kind": "hub", "id": "me/talks"}


def said(model: type[BaseModel], document: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(document)
    place, sentence = first_problem(refused.value, model)
    return f"{listed(place)}: {sentence}"


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("token_budget", 0, "0 is too small: give at least 1"),
        ("token_budget", -7, "-7 is too small: give at least 1"),
        ("max_length", 2_000_000, "2000000 is too large: give at most 1,048,576"),
        ("max_length", "long", "'long' is a text: give a whole number"),
        ("seed", 1.5, "1.5 has a fraction: give a whole number"),
        ("seed", 10**400, "a huge number is too large: give less than 9,223,372,036,854,775,808"),
        ("name", "", "'' is empty: give a text"),
        ("name", 3, "3 is a whole number: give a text"),
        ("name", "x" * 121, f"'{'x' * 57}…' is too long: give at most 120 characters"),
        ("truncation", "front", "'front' is not known: give 'tail', 'head' or 'middle'"),
        ("packing", "maybe", "'maybe' is a text: give true or false"),
        ("slices", [], "[] has too few: give at least 1"),
        ("slices", "all", "'all' is a text: give a list"),
    ],
)
def test_what_is_wrong_with_a_field(field: str, value: object, sentence: str) -> None:
    document = {"name": "x", "slices": [PART], field: value}
    assert said(SetSpec, document) == f"{field}: {sentence}"


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ({"rows": 0}, "slices.0.rows: 0 is too small: give at least 1 or 'all'"),
        ({"rows": "some"}, "slices.0.rows: 'some' is a text: give a whole number or 'all'"),
        ({"weight": 0}, "slices.0.weight: 0 is too small: give more than 0"),
        ({"weight": float("inf")}, "slices.0.weight: inf has no end: give a finite number"),
        ({"tokens": [1]}, "slices.0.tokens: [1] is a list: give a whole number"),
        ({"row": 3}, "slices.0.row: there is no such field; the nearest is 'rows'"),
        ({"": 3}, "slices.0.'': there is no such field"),
        ({"max-rows": 3}, "slices.0.'max-rows': there is no such field; the nearest is 'rows'"),
        ({}, "slices.0: slice 'a' gives none of them: give one of weight, tokens or rows"),
        (
            {"rows": 1, "facets": {"domian": ["law"]}},
            "slices.0.facets.domian: 'domian' is not known: give 'spoken_language', "
            "'programming_language' or 'domain'",
        ),
        (
            {"rows": 1, "prompt": {"templat": "x"}},
            "slices.0.prompt.template: it is missing",
        ),
        (
            {"rows": 1, "prompt": {"template": "x", "valeus": ["a"]}},
            "slices.0.prompt.valeus: there is no such field; the nearest is 'values'",
        ),
    ],
)
def test_what_is_wrong_deeper_inside(part: dict[str, Any], sentence: str) -> None:
    assert said(SetSpec, {"name": "x", "slices": [{"name": "a", **part}]}) == sentence


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"origin": HUB | {"rows_limit": 0}}, "origin.hub.rows_limit: 0 is too small: give at"),
        ({"origin": HUB | {"id": "a/b/c"}}, "origin.hub.id: 'a/b/c' cannot be used: give the id"),
        ({"origin": {"id": "a"}}, "origin: {'id': 'a'} does not say what it is: give 'kind'"),
        (
            {"origin": HUB, "name": "../x"},
            "name: '../x' cannot be used: give 1 to 80 small",
        ),
    ],
)
def test_what_is_wrong_with_a_source(entry: dict[str, Any], sentence: str) -> None:
    assert said(SourceEntry, {"name": "talks", **entry}).startswith(sentence)


def test_a_whole_document_of_another_kind() -> None:
    assert said(SetSpec, [1]) == ": [1] is a list: give keys with values"


def test_a_value_is_shown_shortened() -> None:
    assert shown("a" * 100) == f"'{'a' * 57}…'"
    assert shown("a", quotes=False) == "a"

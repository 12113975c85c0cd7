"""The composer's form: what was typed, kept as it was typed, and the composition it means."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData

from app.calibration.spec import SetSpec
from app.facets import Facet

# One sentence for each field: what would be right.
SENTENCES = {
    "name": "Give it a name of 1 to 120 characters.",
    "token_budget": "Give a whole number of tokens, at least 1.",
    "max_length": "Give a whole number of tokens from 16 to 1,048,576.",
    "seed": "Give a whole number, 0 or more.",
    "packs": "Choose at least one pack.",
    "slices": "Add at least one slice.",
}
SLICE_SENTENCES = {
    "name": "Give the slice a name of its own, 1 to 80 characters.",
    "weight": "Give a weight above 0: the slice's share of the budget.",
    "balance": "Choose a facet from the list.",
    "facets": "Choose values from the list.",
}
NUMBERED = re.compile(r"slice-(\d{1,6})-name")


class SliceFields(BaseModel):
    """One slice as it stands in the form."""

    name: str = ""
    weight: str = "1"
    facets: dict[Facet, list[str]] = {}
    balance: str = ""


class SetFields(BaseModel):
    """The whole form as it stands."""

    name: str = ""
    token_budget: str = ""
    max_length: str = ""
    seed: str = ""
    packs: list[str] = []
    model_id: str = ""
    slices: list[SliceFields] = []


def fields_of_form(form: FormData) -> SetFields:
    """What a browser sent. Slices are numbered, with gaps where one was taken out."""
    numbers = sorted({int(match[1]) for name in form if (match := NUMBERED.fullmatch(name))})
    return SetFields(
        name=_text(form, "name"),
        token_budget=_text(form, "token_budget"),
        max_length=_text(form, "max_length"),
        seed=_text(form, "seed"),
        packs=_texts(form, "packs"),
        model_id=_text(form, "model_id"),
        slices=[_slice_of(form, f"slice-{number}") for number in numbers],
    )


def fields_of_spec(spec: SetSpec, model_id: str) -> SetFields:
    """A composition as the form shows it."""
    return SetFields(
        name=spec.name,
        token_budget=str(spec.token_budget),
        max_length=str(spec.max_length),
        seed=str(spec.seed),
        packs=list(spec.packs),
        model_id=model_id,
        slices=[
            SliceFields(
                name=part.name,
                weight=f"{part.weight:g}",
                facets={facet: list(values) for facet, values in part.facets.items()},
                balance=part.balance.value if part.balance else "",
            )
            for part in spec.slices
        ],
    )


def read_spec(fields: SetFields) -> tuple[SetSpec | None, dict[str, str]]:
    """The composition a form means, or a sentence for each field that is wrong.

    Fields are named as in the form: ``token_budget``, ``slice-2-weight``.
    """
    document = fields.model_dump(exclude={"model_id"})
    for name in ("token_budget", "max_length", "seed"):
        document[name] = _plain_number(document[name])
    for part in document["slices"]:
        part["weight"] = _plain_number(part["weight"])
        part["balance"] = part["balance"] or None
        part["facets"] = {facet: values for facet, values in part["facets"].items() if values}
    try:
        return SetSpec.model_validate(document), {}
    except ValidationError as error:
        return None, dict(_sentences(error, fields))


def _sentences(error: ValidationError, fields: SetFields) -> Iterable[tuple[str, str]]:
    for problem in error.errors(include_url=False):
        match problem["loc"]:
            case ("slices", int(number), field, *_):
                name = str(field)
                yield f"slice-{number}-{name}", SLICE_SENTENCES.get(name, problem["msg"])
            case (field, *_):
                yield str(field), SENTENCES.get(str(field), problem["msg"])
            case _:
                yield from _repeated_names(fields)


def _repeated_names(fields: SetFields) -> Iterable[tuple[str, str]]:
    seen: set[str] = set()
    for number, part in enumerate(fields.slices):
        if part.name in seen:
            sentence = f"Another slice is called {part.name!r} too: give each its own name."
            yield f"slice-{number}-name", sentence
        seen.add(part.name)


def _slice_of(form: FormData, prefix: str) -> SliceFields:
    return SliceFields(
        name=_text(form, f"{prefix}-name"),
        weight=_text(form, f"{prefix}-weight"),
        facets={facet: _texts(form, f"{prefix}-{facet.value}") for facet in Facet},
        balance=_text(form, f"{prefix}-balance"),
    )


def _text(form: FormData, name: str) -> str:
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""


def _texts(form: FormData, name: str) -> list[str]:
    return [value for value in form.getlist(name) if isinstance(value, str)]


def _plain_number(text: str) -> str:
    """A number as people write it, without its thousands separators."""
    return re.sub(r"(?<=\d)[,_\u2009\u202f ](?=\d{3}\b)", "", text)

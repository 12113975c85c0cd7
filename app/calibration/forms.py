"""The composer's form: what was typed, kept as it was typed, and the composition it means."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData

from app.calibration.spec import SetSpec, Slice
from app.facets import Facet

# One sentence for each field: what would be right.
SENTENCES = {
    "name": "Give it a name of 1 to 120 characters.",
    "token_budget": "Give a whole number of tokens, at least 1.",
    "max_length": "Give a whole number of tokens from 16 to 1,048,576.",
    "seed": "Give a whole number, 0 or more.",
    "min_tokens": "Give a whole number of tokens, 0 or more.",
    "truncation": "Choose from the list.",
    "duplicates": "Choose from the list.",
    "reasoning": "Choose from the list.",
    "sources": "Choose at least one source.",
    "slices": "Add at least one slice.",
}
SLICE_SENTENCES = {
    "name": "Give the slice a name of its own, 1 to 80 characters.",
    "weight": "Give a weight above 0: the slice's share of the budget.",
    "tokens": "Give a whole number of tokens, at least 1.",
    "rows": "Give a whole number of rows, at least 1.",
    "balance": "Choose a facet from the list.",
    "sources": "Choose sources from the list.",
    "facets": "Choose values from the list.",
}
NUMBERED = re.compile(r"slice-(\d{1,6})-name")


class SliceFields(BaseModel):
    """One slice as it stands in the form.

    ``kind`` says which of ``weight`` and ``amount`` counts: ``weight``, ``tokens``, ``rows`` or
    ``all``. ``is_locked`` keeps its share while other weights move; it is of the form alone. The
    values of a prompt stand in one line, with commas. ``kept`` is the rest of the slice as JSON,
    which the form carries along.
    """

    name: str = ""
    kind: str = "weight"
    weight: str = "1"
    amount: str = ""
    is_locked: bool = False
    sources: list[str] = []
    prompt: str = ""
    prompt_facet: str = ""
    prompt_values: str = ""
    facets: dict[Facet, list[str]] = {}
    balance: str = ""
    kept: str = ""


class SetFields(BaseModel):
    """The whole form as it stands; ``kept`` as in a slice."""

    name: str = ""
    token_budget: str = ""
    max_length: str = ""
    seed: str = ""
    sources: list[str] = []
    model_id: str = ""
    truncation: str = "tail"
    min_tokens: str = "0"
    duplicates: str = "keep"
    packing: str = ""
    reasoning: str = "native"
    kept: str = ""
    slices: list[SliceFields] = []


def fields_of_form(form: FormData) -> SetFields:
    """What a browser sent. Slices are numbered, with gaps where one was taken out."""
    numbers = sorted({int(match[1]) for name in form if (match := NUMBERED.fullmatch(name))})
    return SetFields(
        name=_text(form, "name"),
        token_budget=_text(form, "token_budget"),
        max_length=_text(form, "max_length"),
        seed=_text(form, "seed"),
        sources=_texts(form, "sources"),
        model_id=_text(form, "model_id"),
        truncation=_text(form, "truncation") or "tail",
        min_tokens=_text(form, "min_tokens") or "0",
        duplicates=_text(form, "duplicates") or "keep",
        packing=_text(form, "packing"),
        reasoning=_text(form, "reasoning") or "native",
        kept=_text(form, "kept"),
        slices=[_slice_of(form, f"slice-{number}") for number in numbers],
    )


def fields_of_spec(spec: SetSpec, model_id: str) -> SetFields:
    """A composition as the form shows it."""
    return SetFields(
        name=spec.name,
        token_budget=str(spec.token_budget or ""),
        max_length=str(spec.max_length),
        seed=str(spec.seed),
        sources=list(spec.sources),
        model_id=model_id,
        truncation=spec.truncation,
        min_tokens=str(spec.min_tokens),
        duplicates=spec.duplicates,
        packing="yes" if spec.packing else "",
        reasoning=spec.reasoning,
        kept=_kept(spec, SetFields.model_fields.keys()),
        slices=[_fields_of_slice(part) for part in spec.slices],
    )


def read_spec(fields: SetFields) -> tuple[SetSpec | None, dict[str, str]]:
    """The composition a form means, or a sentence for each field that is wrong.

    Fields are named as in the form: ``token_budget``, ``slice-2-weight``.
    """
    document = {
        **_unkept(fields.kept),
        "name": fields.name,
        "token_budget": _plain_number(fields.token_budget) or None,
        "max_length": _plain_number(fields.max_length),
        "seed": _plain_number(fields.seed),
        "sources": fields.sources,
        "truncation": fields.truncation,
        "min_tokens": _plain_number(fields.min_tokens),
        "duplicates": fields.duplicates,
        "packing": bool(fields.packing),
        "reasoning": fields.reasoning,
        "slices": [_slice_document(part) for part in fields.slices],
    }
    try:
        return SetSpec.model_validate(document), {}
    except ValidationError as error:
        return None, dict(_sentences(error, fields))


def _fields_of_slice(part: Slice) -> SliceFields:
    fixed = part.tokens or part.rows
    kind = "weight" if part.weight else "tokens" if part.tokens else "rows"
    return SliceFields(
        name=part.name,
        kind="all" if fixed == "all" else kind,
        weight=_as_typed(part.weight or 1.0),
        amount=str(fixed) if isinstance(fixed, int) else "",
        facets={facet: list(values) for facet, values in part.facets.items()},
        balance=part.balance.value if part.balance else "",
        sources=list(part.sources),
        prompt=part.prompt.template if part.prompt else "",
        prompt_facet=part.prompt.facet or "" if part.prompt else "",
        prompt_values=", ".join(part.prompt.values) if part.prompt else "",
        kept=_kept(part, {*SliceFields.model_fields, "tokens", "rows"}),
    )


def _as_typed(weight: float) -> str:
    """A weight as short as it can be without being another."""
    short = f"{weight:g}"
    return short if float(short) == weight else repr(weight)


def _slice_document(part: SliceFields) -> dict[str, Any]:
    sizes = {
        "tokens": {"tokens": _plain_number(part.amount)},
        "rows": {"rows": _plain_number(part.amount)},
        "all": {"rows": "all"},
    }
    return {
        **_unkept(part.kept),
        "name": part.name,
        **sizes.get(part.kind, {"weight": _plain_number(part.weight)}),
        "facets": {facet: values for facet, values in part.facets.items() if values},
        "balance": part.balance or None,
        "sources": part.sources,
        "prompt": _prompt_document(part),
    }


def _prompt_document(part: SliceFields) -> dict[str, Any] | None:
    if not part.prompt:
        return None
    values = [value.strip() for value in part.prompt_values.split(",") if value.strip()]
    return {"template": part.prompt, "facet": part.prompt_facet or None, "values": values}


def _kept(model: BaseModel, shown: Iterable[str]) -> str:
    """What a form has no field for and does not lose: the values that are no defaults."""
    rest = model.model_dump(mode="json", exclude=set(shown), exclude_defaults=True)
    return json.dumps(rest) if rest else ""


def _unkept(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"kept": text}


def _sentences(error: ValidationError, fields: SetFields) -> Iterable[tuple[str, str]]:
    for problem in error.errors(include_url=False):
        match problem["loc"]:
            case ("slices", int(number), "tokens" | "rows" as size, *_):
                yield f"slice-{number}-amount", SLICE_SENTENCES[str(size)]
            case ("slices", int(number), "prompt", *_):
                message = problem["msg"].removeprefix("Value error, ")
                yield f"slice-{number}-prompt", f"{message[:1].upper()}{message[1:]}."
            case ("slices", int(number), field, *_):
                name = str(field)
                yield f"slice-{number}-{name}", SLICE_SENTENCES.get(name, problem["msg"])
            case (field, *_):
                yield str(field), SENTENCES.get(str(field), problem["msg"])
            case _:
                yield from _misfits(problem["msg"], fields)


def _misfits(message: str, fields: SetFields) -> Iterable[tuple[str, str]]:
    """Parts that are right by themselves and do not fit together."""
    repeated = dict(_repeated_names(fields))
    if repeated:
        yield from repeated.items()
    elif "no token_budget" in message:
        yield "token_budget", "Give a budget: slices with a weight are a share of it."
    elif strangers := dict(_strange_sources(fields)):
        yield from strangers.items()
    else:
        yield "slices", message.removeprefix("Value error, ")


def _strange_sources(fields: SetFields) -> Iterable[tuple[str, str]]:
    for number, part in enumerate(fields.slices):
        for name in part.sources:
            if name not in fields.sources:
                sentence = f"{name!r} is not ticked among the set's sources: tick it there too."
                yield f"slice-{number}-sources", sentence


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
        kind=_text(form, f"{prefix}-kind") or "weight",
        weight=_text(form, f"{prefix}-weight"),
        amount=_text(form, f"{prefix}-amount"),
        kept=_text(form, f"{prefix}-kept"),
        facets={facet: _texts(form, f"{prefix}-{facet.value}") for facet in Facet},
        balance=_text(form, f"{prefix}-balance"),
        is_locked=bool(_text(form, f"{prefix}-locked")),
        sources=_texts(form, f"{prefix}-sources"),
        prompt=_words(form, f"{prefix}-prompt"),
        prompt_facet=_text(form, f"{prefix}-prompt_facet"),
        prompt_values=_text(form, f"{prefix}-prompt_values"),
    )


def _text(form: FormData, name: str) -> str:
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""


def _words(form: FormData, name: str) -> str:
    """What a text area holds, with the line ends a template means."""
    value = form.get(name, "")
    return value.replace("\r\n", "\n") if isinstance(value, str) and value.strip() else ""


def _texts(form: FormData, name: str) -> list[str]:
    return [value for value in form.getlist(name) if isinstance(value, str)]


def _plain_number(text: str) -> str:
    """A number as people write it, without its thousands separators."""
    return re.sub(r"(?<=\d)[,_\u2009\u202f ](?=\d{3}\b)", "", text)

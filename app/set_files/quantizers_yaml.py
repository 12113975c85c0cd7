"""A quantizers YAML as a composition and catalogue entries, and everything to be said of it.

One entry becomes one slice with its number of rows. A prefix that picks a language by the salted
hash becomes a prompt whose languages are dealt in rotation, fixed words become a prompt too.
Sections written as comments become categories, and the domain of the rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from app.calibration.spec import Prompt, SetSpec, Slice
from app.errors import Refused
from app.facets import DOMAINS, Facet
from app.prompts.rotation import HashedChoice, hashed_choice
from app.prompts.template import PromptTemplate
from app.row_formats.formatters import FORMATTERS, require_formatter
from app.set_files.imported_set import Category, ImportedEntry, ImportedSet
from app.set_files.prefixes import is_template, prefix_words
from app.set_files.quantizers_format import (
    DEFAULT_LENGTH,
    DEFAULT_SEED,
    OWN,
    ROOT,
    SET_KEYS,
    Entry,
    Fields,
    plain,
    read_entry,
)
from app.set_files.quantizers_reading import Part, Reading
from app.set_files.quantizers_warnings import warnings_of
from app.set_files.section_comments import Comments, read_comments
from app.set_files.source_names import SourceNames
from app.sources.entry import ROWS_LIMIT, SourceEntry
from app.validation import first_problem, kind, listed, shown
from app.yaml_lines import Place, multiline_scalars

MAX_ENTRIES = 200  # a set's slices

# The first of these that a section's title holds decides.
DOMAIN_WORDS = {
    "tool": "tool-use", "function call": "tool-use", "code": "code", "coding": "code",
    "programming": "code", "software": "code", "devops": "devops", "math": "math",
    "multilingual": "multilingual", "language": "multilingual", "translation": "multilingual",
    "medic": "medical", "health": "medical", "financ": "finance", "business": "business",
    "legal": "law", "law": "law", "security": "security", "scien": "sciences",
    "reasoning": "reasoning", "instruction": "reasoning", "creative": "creative-writing",
    "roleplay": "creative-writing", "writing": "creative-writing", "fiction": "creative-writing",
    "literature": "literature", "humanit": "humanities", "philosoph": "humanities",
    "history": "humanities", "knowledge": "general-knowledge", "pop culture": "general-knowledge",
    "behavio": "behaviour", "how-to": "howto", "howto": "howto", "documentation": "software-docs",
    "chat": "general-chat", "conversation": "general-chat", "misc": "misc",
}  # fmt: skip
ASIDE = re.compile(r"\s*\([^()]*\)\s*$")


def is_quantizers(document: Any) -> bool:
    """Whether a YAML document is of this format."""
    return isinstance(document, dict) and ROOT in document


def import_quantizers(
    text: str,
    document: Mapping[str, Any],
    lines: Mapping[Place, int],
    *,
    name: str,
    where: str,
    known: Sequence[SourceEntry] = (),
) -> ImportedSet:
    """The set of a file. ``document`` and ``lines`` are of ``load_with_lines(text)``; ``name`` is
    the set's where the file gives none, ``where`` what a refusal calls the file. Entries of the
    catalogue (``known``) that are the same are used as they are.

    Raises Refused with the line and field of what is wrong.
    """
    fields = _set_fields(document, lines, where)
    comments = read_comments(text, multiline_scalars(text))
    entries = _entries(fields, lines, where)
    making = _Making(comments, fields, SourceNames(known), _asked_of_each(entries))
    parts = [making.part(entry) for entry in entries]
    reading = Reading(parts, comments, fields, document)
    return ImportedSet(
        spec=_spec(reading, name),
        sources=list({part.source.name: part.source for part in parts}.values()),
        entries=[_summary(part) for part in parts],
        categories=_categories(parts),
        warnings=sorted(warnings_of(reading), key=lambda warning: warning.line),
    )


def domain_of_title(title: str) -> str | None:
    """The domain a section's title means, None where it is not clear."""
    said = title.casefold()
    by_label = {label.casefold(): value for value, label in DOMAINS.items()}
    if said in DOMAINS or said in by_label:
        return by_label.get(said, said)
    return next((value for word, value in DOMAIN_WORDS.items() if word in said), None)


def _set_fields(document: Mapping[str, Any], lines: Mapping[Place, int], where: str) -> Fields:
    given = document[ROOT]
    if isinstance(given, dict):
        return Fields(given, (ROOT,), lines, where)
    hint = ", the name of another file: import that one" if isinstance(given, str) else ""
    raise Refused(
        f"{where}, line {lines.get((ROOT,), 1)}, {ROOT}: {shown(given)} is {kind(given)}{hint}; "
        "a set has the keys max_seq_length, seed and datasets."
    )


def _entries(fields: Fields, lines: Mapping[Place, int], where: str) -> list[Entry]:
    given = fields.given.get("datasets")
    if not isinstance(given, list) or not given:
        said = "it is missing or empty" if not given else f"{shown(given)} is {kind(given)}"
        raise fields.refused("datasets", f"{said}; give a list with at least one entry")
    if len(given) > MAX_ENTRIES:
        raise fields.refused(
            "datasets", f"{len(given):,} entries are more than the {MAX_ENTRIES} of a set"
        )
    place: Place = (ROOT, "datasets")
    return [read_entry(one, (*place, at), lines, where) for at, one in enumerate(given)]


@dataclass
class _Making:
    """Entries becoming slices and sources, each with a name of its own."""

    comments: Comments
    fields: Fields
    sources: SourceNames
    asked: Mapping[tuple[str | None, ...], int | None]

    def __post_init__(self) -> None:
        self._taken: set[str] = set()

    def part(self, entry: Entry) -> Part:
        """An entry as a slice and a source. Raises Refused."""
        heading = self.comments.heading_of(entry.line)
        title = entry.category or DOMAINS.get(entry.tags.get(Facet.DOMAIN, ""))
        if title is None and heading is not None:
            title = ASIDE.sub("", heading.title)[:80]
        domain = entry.tags.get(Facet.DOMAIN) or (domain_of_title(title) if title else None)
        prompt, choice = self._prompt(entry)
        params = _params(entry, prompt)
        source = self._source(entry, params, domain)
        part = self._slice(entry, source, prompt, params, title)
        return Part(entry, heading, title, domain, choice, source, part)

    def _prompt(self, entry: Entry) -> tuple[Prompt | None, HashedChoice | None]:
        """What a prefix becomes: words before each row, dealt where it picks them by a hash."""
        prefix = entry.params.get("prefix")
        if prefix is not None and not isinstance(prefix, str):
            raise self._refused(entry, f"prefix is {shown(prefix)}, {kind(prefix)}: give a text")
        if not prefix or prefix == _own_params(entry).get("prefix"):
            return None, None
        try:
            if not is_template(prefix):
                template = prefix_words(prefix)
                PromptTemplate(template)
                return Prompt(template=template), None
            PromptTemplate(prefix)
            choice = hashed_choice(prefix)
        except Refused as refused:
            raise self._refused(entry, refused.sentence.rstrip(".")) from refused
        if choice is None:
            return Prompt(template=prefix), None
        return Prompt(template=choice.text, facet=choice.facet, values=choice.values), choice

    def _source(self, entry: Entry, params: dict[str, Any], domain: str | None) -> SourceEntry:
        given = entry.own.get("source") or {}
        if not isinstance(given, dict) or not isinstance(given.get("origin", {}), dict):
            raise self._refused(entry, "source is no mapping", OWN)
        origin: dict[str, Any] = {
            "kind": "hub",
            "id": entry.dataset,
            "subset": entry.subset,
            "split": entry.split,
        }
        origin |= {"revision": entry.revision, "streaming": entry.streaming}
        origin |= _rows_limit(self.asked[_data_of(entry)], entry.streaming)
        origin |= given.get("origin", {})
        if entry.dataset.startswith("/"):
            origin = {"kind": "folder", "path": entry.dataset}
        document = {
            "name": "unnamed",
            "columns": entry.columns,
            "formatter": entry.formatter,
            "params": params,
            "tags": {**({Facet.DOMAIN: domain} if domain else {}), **entry.tags},
            "license": entry.license,
            **given,
            "origin": origin,
        }
        try:
            require_formatter(entry.formatter, entry.columns, params)
            made = SourceEntry.model_validate(document)
        except ValidationError as error:
            raise self._invalid(entry, error, SourceEntry) from error
        except Refused as refused:
            field = "columns" if entry.formatter in FORMATTERS else "formatter"
            raise self._refused(entry, refused.sentence.rstrip("."), field) from refused
        return self.sources.settle(
            made, is_named="name" in given, is_tagged="tags" in given or bool(entry.tags)
        )

    def _slice(
        self,
        entry: Entry,
        source: SourceEntry,
        prompt: Prompt | None,
        params: dict[str, Any],
        title: str | None,
    ) -> Slice:
        lost = {name: entry.params[name] for name in entry.params if name not in params}
        lost.pop("prefix", None)
        extra = {"category": title, "entry": dict(entry.unknown), "formatter_params": lost}
        try:
            return Slice(
                name=self._free(str(entry.own.get("slice", entry.dataset)), entry.split),
                rows=entry.rows,
                sources=(source.name,),
                prompt=prompt,
                extra={key: value for key, value in extra.items() if value},
            )
        except ValidationError as error:
            raise self._invalid(entry, error, Slice) from error

    def _free(self, name: str, split: str) -> str:
        """A slice's name that no other has."""
        tries = [name, f"{name} · {split}", *(f"{name} ({n})" for n in range(2, 2 + MAX_ENTRIES))]
        cut = (each if len(each) <= 80 else each[:30] + "…" + each[-49:] for each in tries)
        free = next(each for each in cut if each not in self._taken)
        self._taken.add(free)
        return free

    def _invalid(self, entry: Entry, error: ValidationError, model: type[BaseModel]) -> Refused:
        place, said = first_problem(error, model)
        steps = [step for step in place if step not in ("hub", "folder", "origin")]
        if steps in (["id"], ["path"]):
            wanted = "it is neither a data set of the hub (owner/name) nor a whole path"
            return self._refused(entry, f"{shown(entry.dataset)}: {wanted}", "dataset")
        return self._refused(entry, said, listed(steps) or OWN)

    def _refused(self, entry: Entry, problem: str, field: str = "formatter_params") -> Refused:
        line = entry.lines.get(field.partition(".")[0], entry.line)
        return Refused(f"{self.fields.where}, line {line}, {field}: {problem}.")


def _params(entry: Entry, prompt: Prompt | None) -> dict[str, Any]:
    """The parameters that the formatter has; the others are kept beside the slice."""
    known = FORMATTERS[entry.formatter].params if entry.formatter in FORMATTERS else {}
    return {
        name: value
        for name, value in entry.params.items()
        if name in known and not (name == "prefix" and (prompt or not value))
    }


def _data_of(entry: Entry) -> tuple[str | None, ...]:
    return entry.dataset, entry.subset, entry.split, entry.revision


def _asked_of_each(entries: Sequence[Entry]) -> dict[tuple[str | None, ...], int | None]:
    """The rows that the entries of each data set ask for together, None for all."""
    asked: dict[tuple[str | None, ...], int | None] = {}
    for entry in entries:
        before = asked.get(_data_of(entry), 0)
        every = entry.rows == "all" or before is None
        asked[_data_of(entry)] = None if every else int(entry.rows) + int(before or 0)
    return asked


def _rows_limit(asked: int | None, streaming: bool) -> dict[str, int | None]:
    """How many rows to keep of a data set of the hub so that those asked for are there: some are
    held out, some do not fit. Of a streamed one no more than usual where all are asked for."""
    if asked is None:
        return {} if streaming else {"rows_limit": None}
    return {"rows_limit": min(2 * asked, 10**7)} if 2 * asked > ROWS_LIMIT else {}


def _own_params(entry: Entry) -> dict[str, Any]:
    """The parameters that our own part of an entry says are the source's."""
    source = entry.own.get("source")
    params = source.get("params") if isinstance(source, dict) else None
    return params if isinstance(params, dict) else {}


def _spec(reading: Reading, name: str) -> SetSpec:
    fields = reading.fields
    own = fields.mapping(OWN)
    beside = {str(key): plain(value) for key, value in reading.document.items() if key != ROOT}
    kept = fields.unknown(SET_KEYS)
    if not fields.truth("shuffle", True):
        kept["shuffle"] = False
    if unused := reading.unused_templates():
        kept["_templates"] = {key: plain(value) for key, value in unused.items()}
    extra = {ROOT: kept, "document": beside}
    try:
        return SetSpec.model_validate(
            {
                "name": name[:120] or "Imported set",
                "max_length": fields.number("max_seq_length", 16, 1_048_576, DEFAULT_LENGTH),
                "seed": fields.number("seed", 0, 2**63 - 1, DEFAULT_SEED),
                "sources": tuple(dict.fromkeys(part.source.name for part in reading.parts)),
                "slices": tuple(part.slice for part in reading.parts),
                "extra": {key: value for key, value in extra.items() if value},
                **own,
            }
        )
    except ValidationError as error:
        place, said = first_problem(error, SetSpec)
        raise fields.refused(OWN, f"{listed(place)}: {said}" if place else said) from error


def _summary(part: Part) -> ImportedEntry:
    origin = part.entry.dataset
    return ImportedEntry(
        line=part.entry.line,
        slice=part.slice.name,
        source=part.source.name,
        origin=origin,
        rows=part.slice.rows,
        formatter=part.entry.formatter,
        category=part.title,
        domain=part.domain,
        names=list(part.slice.prompt.values) if part.slice.prompt else [],
    )


def _categories(parts: Sequence[Part]) -> list[Category]:
    by_title: dict[str, list[Part]] = {}
    for part in parts:
        if part.title:
            by_title.setdefault(part.title, []).append(part)
    return [
        Category(
            title=title,
            domain=held[0].domain,
            entries=len(held),
            rows=sum(part.entry.rows for part in held if isinstance(part.entry.rows, int)),
            line=held[0].heading.line if held[0].heading else held[0].entry.line,
            said_rows=held[0].heading.rows if held[0].heading else None,
        )
        for title, held in by_title.items()
    ]

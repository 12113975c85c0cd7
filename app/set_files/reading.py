"""Files that hold a set: a quantizers YAML, or our own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from app.calibration.spec import SetSpec
from app.errors import Refused
from app.nearest import nearest
from app.set_files.imported_set import ImportedEntry, ImportedSet, ImportWarning
from app.set_files.quantizers_format import plain
from app.set_files.quantizers_yaml import import_quantizers, is_quantizers
from app.set_files.source_names import SourceNames
from app.sources.entry import SourceEntry
from app.sources.starter_corpus import PACKS
from app.validation import first_problem, kind, listed, shown
from app.yaml_lines import Place, decoded, load_with_lines, sentence

# Beside the fields of SetSpec our own file carries the catalogue entries its set uses.
CATALOGUE = "catalogue"
MAX_CHARACTERS = 500_000
# What a file may say anything in.
OPEN = ("extra", "params")


def read_set_file(
    content: bytes | str, file_name: str, known: Sequence[SourceEntry] = ()
) -> ImportedSet:
    """The set of a file. Entries of the catalogue (``known``) that are the same are used.

    Raises Refused, in one sentence with the file, the line and the field, for whatever is wrong.
    """
    where = PurePath(file_name.replace("\\", "/")).name or "the file"
    text = content if isinstance(content, str) else decoded(content, where)
    if len(text) > MAX_CHARACTERS:
        raise Refused(
            f"{where} has {len(text):,} characters; a set's file has at most {MAX_CHARACTERS:,}."
        )
    try:
        document, lines = load_with_lines(text)
    except yaml.YAMLError as error:
        raise Refused(sentence(error, where, text)) from error
    if document is None:
        raise Refused(f"{where} is empty: give a set with datasets (quantizers) or slices (ours).")
    if is_quantizers(document):
        name = PurePath(where).stem
        return import_quantizers(text, document, lines, name=name, where=where, known=known)
    return _own(document, lines, where, known)


def _own(
    document: Any, lines: dict[Place, int], where: str, known: Sequence[SourceEntry]
) -> ImportedSet:
    """A set in our own words."""
    if not isinstance(document, dict):
        raise Refused(
            f"{where}, line {lines.get((), 1)}: {shown(document)} is {kind(document)}; a set is a "
            "mapping with calibration_set (quantizers) or name and slices (ours)."
        )
    given = _with_plain(document)
    listed = given.pop(CATALOGUE, [])
    if not isinstance(listed, list):
        raise Refused(f"{where}, line {lines[(CATALOGUE,)]}, {CATALOGUE}: give a list of sources.")
    sources = [_entry(one, (CATALOGUE, at), lines, where) for at, one in enumerate(listed)]
    for at, name in enumerate(names := [source.name for source in sources]):
        if name in names[:at]:
            line = lines.get((CATALOGUE, at), 1)
            raise Refused(f"{where}, line {line}, {CATALOGUE}: the source {name!r} stands twice.")
    try:
        spec = SetSpec.model_validate(given)
    except ValidationError as error:
        raise _invalid(error, SetSpec, (), lines, where) from error
    _require_sources(spec, sources, known, where, lines)
    spec, settled, warnings = _settled(spec, sources, known, lines)
    return ImportedSet(
        format="calibrant",
        spec=spec,
        sources=[source for source in settled if source.name in spec.sources],
        entries=_entries(spec, settled, lines),
        categories=[],
        warnings=warnings,
    )


def _with_plain(value: Any) -> Any:
    """A document whose fields that hold whatever a file says hold what JSON can write."""
    if isinstance(value, dict):
        return {
            key: plain(held) if key in OPEN else _with_plain(held) for key, held in value.items()
        }
    return [_with_plain(each) for each in value] if isinstance(value, list) else value


def _settled(
    spec: SetSpec,
    sources: Sequence[SourceEntry],
    known: Sequence[SourceEntry],
    lines: dict[Place, int],
) -> tuple[SetSpec, list[SourceEntry], list[ImportWarning]]:
    """The set with its sources under names that are theirs here: a name of the file may be
    another source's in this catalogue."""
    names = SourceNames(known)
    settled = [names.settle(source, is_named=True, is_tagged=True) for source in sources]
    renamed = {
        old.name: new.name
        for old, new in zip(sources, settled, strict=True)
        if old.name != new.name
    }
    if not renamed:
        return spec, settled, []
    warnings = [
        ImportWarning(
            line=lines.get((CATALOGUE, at), 1),
            message=f"{old.name} is another source in this catalogue: kept as {new.name}.",
        )
        for at, (old, new) in enumerate(zip(sources, settled, strict=True))
        if old.name != new.name
    ]
    document = spec.model_dump()
    document["sources"] = [renamed.get(name, name) for name in spec.sources]
    for part in document["slices"]:
        part["sources"] = [renamed.get(name, name) for name in part["sources"]]
    return SetSpec.model_validate(document), settled, warnings


def _entry(given: Any, place: Place, lines: dict[Place, int], where: str) -> SourceEntry:
    try:
        return SourceEntry.model_validate(given)
    except ValidationError as error:
        raise _invalid(error, SourceEntry, place, lines, where) from error


def _invalid(
    error: ValidationError,
    model: type[BaseModel],
    within: Place,
    lines: dict[Place, int],
    where: str,
) -> Refused:
    place, said = first_problem(error, model)
    path = (*within, *place)
    known = next((path[:end] for end in range(len(path), -1, -1) if path[:end] in lines), ())
    field = listed(path) or "the document"
    return Refused(f"{where}, line {lines.get(known, 1)}, {field}: {said}.")


def _require_sources(
    spec: SetSpec,
    sources: Sequence[SourceEntry],
    known: Sequence[SourceEntry],
    where: str,
    lines: dict[Place, int],
) -> None:
    there = {*PACKS, *(one.name for one in sources), *(one.name for one in known)}
    for name in spec.sources:
        if name not in there:
            raise Refused(
                f"{where}, line {lines.get(('sources',), 1)}, sources: there is no source {name!r} "
                f"in the catalogue, nor in the file's {CATALOGUE}{nearest(name, there)}."
            )


def _entries(
    spec: SetSpec, sources: Sequence[SourceEntry], lines: dict[Place, int]
) -> list[ImportedEntry]:
    formatters = {source.name: source.formatter for source in sources}
    return [
        ImportedEntry(
            line=lines.get(("slices", at), 1),
            slice=part.name,
            source=", ".join(part.sources or spec.sources),
            origin=", ".join(part.sources or spec.sources),
            rows=part.rows,
            formatter=", ".join(formatters.get(name, "") for name in part.sources),
            category=part.extra.get("category"),
            domain=None,
            names=list(part.prompt.values) if part.prompt else [],
        )
        for at, part in enumerate(spec.slices)
    ]

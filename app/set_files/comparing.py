"""Two sets side by side: found by what a person calls them, compared as far as both go."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
from pydantic import BaseModel
from sqlmodel import Session

from app.calibration import service
from app.calibration.built_set import MANIFEST, BuiltSet, load_built_set
from app.calibration.models import CalibrationSet
from app.calibration.spec import SetSpec
from app.calibration.starter import software_engineer
from app.errors import NotFound, Refused
from app.facets import Facet
from app.set_files.differences import (
    BuiltRow,
    Change,
    HeldDifference,
    compare_rows,
    compare_specs,
)
from app.set_files.service import read_for
from app.settings import Settings

STARTER = "starter"
BUILT_ID = re.compile(r"[0-9a-f]{16}")
# What else a built set depends on, and what it is called.
MADE_OF = {
    "tokenizer_sha256": "tokenizer",
    "template_sha256": "chat template",
    "template_date": "date in the chat template",
    "algorithm": "algorithm",
    "rendering": "way of rendering",
    "packages": "packages",
    "sources": "revisions of sources",
}


@dataclass(frozen=True)
class Side:
    """A set to compare: its composition, and what was built of it where that is known."""

    id: str
    spec: SetSpec
    built: BuiltSet | None


class SideName(BaseModel):
    """A set as the comparison names it. ``built`` is the built set's id, None for a composition
    alone."""

    id: str
    name: str
    built: str | None


class SetDifference(BaseModel):
    """Two sets side by side. ``held`` is None where not both are built."""

    a: SideName
    b: SideName
    composition: list[Change]
    made_of: list[Change]
    held: HeldDifference | None


def find_side(session: Session, settings: Settings, name: str, *, files: bool = False) -> Side:
    """The set somebody means: a saved set's id, a built set's, ``starter``; with ``files`` also a
    set's YAML or the directory of a built set.

    Raises NotFound, and Refused for a file that is no set.
    """
    if name == STARTER:
        return Side(name, software_engineer(), None)
    if session.get(CalibrationSet, name):
        return Side(name, service.spec_of(service.get_set(session, name)), None)
    if BUILT_ID.fullmatch(name) and (settings.sets_dir / name / MANIFEST).is_file():
        return _built(load_built_set(settings.sets_dir / name))
    if files and (Path(name) / MANIFEST).is_file():
        return _built(load_built_set(Path(name)))
    if files and Path(name).is_file():
        return Side(Path(name).name, read_for(session, Path(name).read_bytes(), name).spec, None)
    raise NotFound(f"There is no set {name!r}: give a saved set's id or a built set's.")


def compare(settings: Settings, a: Side, b: Side) -> SetDifference:
    """How two sets differ.

    Of compositions that were built with the same tokenizer the newest builds are compared too.
    """
    a, b = _with_builds(settings, a, b)
    held = None
    made_of: list[Change] = []
    if a.built and b.built:
        held = compare_rows(built_rows(a.built), built_rows(b.built))
        made_of = list(_made_of(a.built, b.built))
    return SetDifference(
        a=_name(a),
        b=_name(b),
        composition=compare_specs(a.spec, b.spec),
        made_of=made_of,
        held=held,
    )


def built_sets(settings: Settings) -> list[BuiltSet]:
    """Every built set of the installation that can be read, the newest first. One that is damaged
    or of an older format is of no composition of today, and closes no page of another."""
    manifests = settings.sets_dir.glob(f"[!.]*/{MANIFEST}")
    found = sorted(manifests, key=lambda file: file.stat().st_mtime_ns, reverse=True)
    return [built for file in found if (built := _readable(file.parent))]


def builds_of(settings: Settings, spec: SetSpec) -> list[BuiltSet]:
    """What was built of a composition, the newest first."""
    document = spec.model_dump(mode="json")
    return [built for built in built_sets(settings) if built.identity["spec"] == document]


def built_set(settings: Settings, built_id: str) -> BuiltSet:
    """A built set of the installation by its id. Raises NotFound."""
    if not BUILT_ID.fullmatch(built_id):  # a directory's name: nothing else is one
        raise NotFound(f"There is no built set {built_id!r}.")
    return load_built_set(settings.sets_dir / built_id)


def built_rows(built: BuiltSet) -> Iterator[BuiltRow]:
    """The rows of a built set, as far as sets are compared by them."""
    columns = ["row_id", "source", "slice", "fed_tokens", "named_tokens", "text"]
    columns += ["named_facet", "named_value", *Facet]
    table = built.table([*columns, "input_ids"])
    lengths = pc.list_value_length(table["input_ids"]).to_pylist()
    for tokens, row in zip(lengths, table.select(columns).to_pylist(), strict=True):
        yield BuiltRow(
            row_id=row["row_id"],
            source=row["source"],
            slice=row["slice"],
            facets={facet: row[facet] for facet in Facet if row[facet] is not None},
            tokens=tokens,
            fed_tokens=row["fed_tokens"],
            named_tokens=row["named_tokens"],
            named_facet=row["named_facet"],
            named_value=row["named_value"],
            text_sha256=hashlib.sha256(row["text"].encode()).hexdigest(),
        )


def _built(built: BuiltSet) -> Side:
    return Side(built.id, SetSpec.model_validate(built.identity["spec"]), built)


def _readable(directory: Path) -> BuiltSet | None:
    try:
        return load_built_set(directory)
    except Refused:
        return None


def _with_builds(settings: Settings, a: Side, b: Side) -> tuple[Side, Side]:
    """Compositions with the newest of their builds that share a tokenizer."""
    if a.built and b.built:
        return a, b
    first, second = (
        [side.built] if side.built else builds_of(settings, side.spec) for side in (a, b)
    )
    for one in first:
        for other in second:
            if one.identity["tokenizer_sha256"] == other.identity["tokenizer_sha256"]:
                return Side(a.id, a.spec, one), Side(b.id, b.spec, other)
    return Side(a.id, a.spec, None), Side(b.id, b.spec, None)


def _made_of(a: BuiltSet, b: BuiltSet) -> Iterator[Change]:
    for key, label in MADE_OF.items():
        first, second = (_as_text(built.identity.get(key)) for built in (a, b))
        if first != second:
            yield Change(place=label, a=first, b=second)


def _as_text(value: object) -> str:
    if isinstance(value, list):  # sources with their revisions
        return ", ".join(" ".join(str(part)[:12] for part in one.values()) for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    text = str(value)
    return text[:12] if len(text) == 64 else text


def _name(side: Side) -> SideName:
    return SideName(id=side.id, name=side.spec.name, built=side.built.id if side.built else None)

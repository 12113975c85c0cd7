"""A composition as a file: in the quantizers' format where that can say it, else in our own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from app.calibration.spec import SetSpec
from app.errors import Refused
from app.set_files.quantizers_export import inexpressible, to_quantizers
from app.set_files.reading import CATALOGUE, read_set_file
from app.sources.entry import SourceEntry
from app.yaml_lines import dump

MOST_NAMED = 5


class SetFile(BaseModel):
    """A set's file. ``unsaid`` is what the quantizers' format, which was asked for, has no field
    for; the file is in our own then."""

    format: str
    text: str
    unsaid: str = ""

    @property
    def warnings(self) -> list[str]:
        """Why it is not in the format that was asked for."""
        if not self.unsaid:
            return []
        said = "Written in Calibrant's own format, the quantizers' cannot say this: "
        return [f"{said}{self.unsaid}."]


def export_set(spec: SetSpec, sources: Mapping[str, SourceEntry], *, own: bool = False) -> SetFile:
    """The file of a set: with ``own`` in our format, else in the quantizers' where that is
    possible without losing anything.

    ``sources`` are the entries of the catalogue by name; those of the starter corpus need none.
    """
    if own:
        return SetFile(format="calibrant", text=to_own(spec, sources))
    named_spec = _with_named_sources(spec)
    problems = inexpressible(named_spec, sources)
    if not problems:
        text = to_quantizers(named_spec, sources)
        if _comes_back(text, named_spec, sources):
            return SetFile(format="quantizers", text=text)
        problems = ["it would not come back as it is"]
    named = "; ".join(problems[:MOST_NAMED])
    more = len(problems) - MOST_NAMED
    said = f"{named}; and {more} more" if more > 0 else named
    return SetFile(format="calibrant", text=to_own(spec, sources), unsaid=said)


def _with_named_sources(spec: SetSpec) -> SetSpec:
    """The same set, its only source named at each slice, as the quantizers' format wants it."""
    if len(spec.sources) > 1:
        return spec
    slices = tuple(part.model_copy(update={"sources": spec.sources}) for part in spec.slices)
    return spec.model_copy(update={"slices": slices})


def to_own(spec: SetSpec, sources: Mapping[str, SourceEntry]) -> str:
    """Our own YAML: the composition, and the entries of its sources for whoever has them not."""
    there = [sources[name] for name in spec.sources if name in sources]
    used = [source for source in there if source.origin.kind != "starter"]
    document = spec.model_dump(mode="json", exclude_defaults=True)
    if used:
        document[CATALOGUE] = [_entry(source) for source in used]
    return dump(document)


def _entry(source: SourceEntry) -> dict[str, Any]:
    document = source.model_dump(mode="json", exclude_defaults=True)
    kind = {"kind": source.origin.kind}  # it has a default in each origin, and tells them apart
    return document | {"origin": kind | document.get("origin", {})}


def _comes_back(text: str, spec: SetSpec, sources: Mapping[str, SourceEntry]) -> bool:
    """Whether the file, read again, is the same set of the same sources."""
    try:
        read = read_set_file(text, "exported.yaml")
    except Refused:
        return False
    used = {name: sources[name] for name in spec.sources}
    return read.spec == spec and {source.name: source for source in read.sources} == used

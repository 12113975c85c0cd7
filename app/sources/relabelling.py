"""New tags on rows that are here already: nothing is fetched again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from app.facets import Facet
from app.sources.entry import SourceEntry
from app.sources.rows import MANIFEST, RowsFile, iterate_rows
from app.sources.store import (
    Row,
    SetAsideRow,
    load_manifest,
    load_set_aside,
    make_current,
    place_of,
    write_revision,
)


def differs_in_labels_alone(old: SourceEntry, new: SourceEntry) -> bool:
    """Whether two entries give the same conversations, labelled otherwise."""
    return old.model_copy(update={"tags": new.tags, "license": new.license}).recipe == new.recipe


def relabelled(entry: SourceEntry, file: RowsFile, sources_dir: Path) -> RowsFile:
    """The rows of a revision as a new one with an entry's tags and licence; what a row said of
    itself stays."""
    manifest = load_manifest(file)
    place = place_of(entry, manifest.commit, sources_dir)
    if place.path.with_name(MANIFEST).is_file():
        make_current(place, sources_dir)
        return place
    lenient = entry.model_copy(update={"set_aside_limit": None})
    made = write_revision(
        lenient,
        manifest.commit,
        _rows(file, manifest.entry.license),
        sources_dir,
        sampling=manifest.sampling,
        made_of=manifest,
    )
    return made


def _rows(file: RowsFile, license_before: str | None) -> Iterator[Row | SetAsideRow]:
    yield from load_set_aside(file)
    for batch in iterate_rows(file):
        for row in batch:
            own = [Facet(name) for name in row["own_facets"].split(",") if name]
            yield Row(
                number=row["number"],
                messages=json.loads(row["messages"]) if row["messages"] else None,
                text=row["text"],
                facets={facet: row[facet.value] for facet in own},
                license=row["license"] if _is_own(row, license_before) else None,
            )


def _is_own(row: Mapping[str, Any], license_before: str | None) -> bool:
    """Whether a row named its licence itself; revisions of before that was kept are asked whether
    it is another than their entry's."""
    return bool(row.get("own_license", row["license"] != license_before))

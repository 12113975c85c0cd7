"""The catalogue of sources: what there is to compose from, its size, licences and revision."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import pyarrow.parquet as pq
from pydantic import BaseModel, Field

from app.errors import NotFound
from app.facets import Facet
from app.sources.starter_corpus import PACKS, Pack, Split, pack_file

TITLES: dict[Pack, str] = {
    "permissive": "Starter corpus, permissive licences and public domain",
    "cc-by-sa": "Starter corpus, Creative Commons Attribution-ShareAlike",
    "copyleft": "Starter corpus, GPL, GFDL, MPL and EPL",
}


class Source(BaseModel):
    """A source of rows. ``revision`` is the SHA-256 of its file; ``rows`` counts both splits;
    ``licenses`` and ``facets`` count rows by value; ``notice`` is the pack's NOTICE."""

    name: str
    title: str
    kind: str = "starter corpus"
    revision: str
    size_bytes: int
    rows: int
    splits: dict[Split, int]
    licenses: dict[str, int]
    facets: dict[Facet, dict[str, int]]
    notice: str | None = Field(exclude=True)


def list_sources() -> list[Source]:
    """Every source that is there, in the order of the catalogue."""
    return [get_source(pack) for pack in PACKS if pack_file(pack).is_file()]


def sources_in_use(packs: Iterable[str]) -> list[Source]:
    """The sources of some packs, in the order of the catalogue. Raises NotFound."""
    wanted = set(packs)
    for unknown in sorted(wanted.difference(PACKS)):
        get_source(unknown)
    return [get_source(pack) for pack in PACKS if pack in wanted]


def get_source(name: str) -> Source:
    """A source by its name. Raises NotFound."""
    file = pack_file(name) if name in PACKS else None
    if file is None or not file.is_file():
        known = ", ".join(pack for pack in PACKS if pack_file(pack).is_file())
        raise NotFound(f"There is no source {name!r}; there are: {known or 'none'}.")
    return _described(name, file, file.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _described(name: Pack, file: Path, changed: int) -> Source:  # noqa: ARG001, part of the key
    content = file.read_bytes()
    table = pq.read_table(file, columns=["license", "split", *(facet.value for facet in Facet)])
    counts = {column: _sorted_counts(table[column].to_pylist()) for column in table.column_names}
    notice = file.parent / "NOTICE"
    return Source(
        name=name,
        title=TITLES[name],
        revision=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        rows=table.num_rows,
        splits=counts["split"],
        licenses=counts["license"],
        facets={facet: counts[facet.value] for facet in Facet},
        notice=notice.read_text(encoding="utf-8") if notice.is_file() else None,
    )


def _sorted_counts(values: list[str | None]) -> dict[str, int]:
    """How often each value stands, the most frequent first; equal ones by the alphabet."""
    counts = Counter(value for value in values if value is not None)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

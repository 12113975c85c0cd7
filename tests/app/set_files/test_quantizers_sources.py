"""The sources that an imported quantizers YAML gives: how many rows they keep, their tags."""

from __future__ import annotations

from typing import Any

import pytest

from app.facets import Facet
from app.set_files.imported_set import ImportedSet
from app.set_files.reading import read_set_file
from app.set_files.writing import export_set
from app.sources.entry import HubOrigin
from tests.app.set_files.samples import ENTRY, file_of


def read(text: str, **more: Any) -> ImportedSet:
    return read_set_file(text, "set.yaml", **more)


@pytest.mark.parametrize(
    ("rows", "more", "limit"),
    [(800, {}, 2_000), (5_000, {}, 10_004), ("all", {}, None), ("all", {"streaming": True}, 2_000)],
)
def test_a_source_keeps_as_many_rows_as_the_file_asks_for(
    rows: int | str, more: dict[str, Any], limit: int | None
) -> None:
    entry = {**ENTRY, **more}
    found = read(file_of({**entry, "num_samples": rows}, {**entry, "num_samples": 2}))
    (source,) = found.sources
    assert isinstance(source.origin, HubOrigin)
    assert source.origin.rows_limit == limit
    exported = export_set(found.spec, {source.name: source})
    assert (exported.format, read(exported.text).sources) == ("quantizers", [source])
    small = source.model_copy(
        update={"origin": source.origin.model_copy(update={"rows_limit": 900})}
    )
    said = [
        one.message for one in read(file_of({**entry, "num_samples": rows}), known=[small]).warnings
    ]
    assert any("keeps a sample of 900" in one or "at most 900" in one for one in said)


def test_tags_are_the_vocabularys_values() -> None:
    tags = {"programming_language": "c++", "spoken_language": "zh-Hans", "domain": "Tool use"}
    (source,) = read(file_of({**ENTRY, "tags": tags})).sources
    assert source.tags == {
        Facet.PROGRAMMING_LANGUAGE: "C++",
        Facet.SPOKEN_LANGUAGE: "zh",
        Facet.DOMAIN: "tool-use",
    }

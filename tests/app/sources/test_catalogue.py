from __future__ import annotations

import hashlib
import json

import pytest

from app.errors import NotFound
from app.facets import Facet
from app.sources.catalogue import get_source, list_sources, sources_in_use
from app.sources.starter_corpus import PACKS, load_rows, pack_file


def test_every_pack_is_listed_with_its_rows_and_licences() -> None:
    sources = list_sources()
    assert [source.name for source in sources] == list(PACKS)
    for source in sources:
        rows = load_rows([source.name], split=None)
        assert source.rows == len(rows) == sum(source.splits.values())
        assert sum(source.licenses.values()) == len(rows)
        assert set(source.licenses) == {row["license"] for row in rows}
        german = sum(row["spoken_language"] == "de" for row in rows)
        assert source.facets[Facet.SPOKEN_LANGUAGE].get("de", 0) == german
        assert source.revision == hashlib.sha256(pack_file(source.name).read_bytes()).hexdigest()
        assert source.notice


def test_the_most_frequent_licence_comes_first() -> None:
    counts = list(get_source("permissive").licenses.values())
    assert counts == sorted(counts, reverse=True)


def test_the_document_leaves_the_notice_out() -> None:
    document = json.loads(get_source("permissive").model_dump_json())
    assert "notice" not in document
    assert {"name", "title", "revision", "rows", "licenses", "facets"} <= document.keys()


def test_sources_in_use_follow_the_catalogue() -> None:
    assert [one.name for one in sources_in_use(("copyleft", "permissive"))] == [
        "permissive",
        "copyleft",
    ]


def test_an_unknown_source_is_not_found() -> None:
    with pytest.raises(NotFound, match="There is no source 'nothing'; there are: permissive"):
        get_source("nothing")
    with pytest.raises(NotFound):
        sources_in_use(["permissive", "nothing"])

"""A row's own labels in the words of the vocabularies."""

from __future__ import annotations

from app.facets import Facet
from app.row_formats.labels import own_labels


def test_a_rows_own_columns_come_before_nothing_else() -> None:
    columns = {Facet.SPOKEN_LANGUAGE: "lang"}
    cells = {"lang": " Hebrew ", "domain": "law", "programming_language": 3}
    assert own_labels(columns, cells) == {Facet.SPOKEN_LANGUAGE: "he", Facet.DOMAIN: "law"}
    assert own_labels(columns, {"lang": "", "domain": None, "programming_language": "a\nb"}) == {}

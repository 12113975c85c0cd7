"""A row's own labels in the words of the vocabularies."""

from __future__ import annotations

import pytest

from app.facets import Facet
from app.row_formats.labels import known_value, own_labels


@pytest.mark.parametrize(
    ("facet", "label", "value"),
    [
        (Facet.PROGRAMMING_LANGUAGE, "python", "Python"),
        (Facet.PROGRAMMING_LANGUAGE, "C++", "C++"),
        (Facet.PROGRAMMING_LANGUAGE, "cpp", "C++"),
        (Facet.PROGRAMMING_LANGUAGE, "COBOL", "COBOL"),
        (Facet.PROGRAMMING_LANGUAGE, "Befunge", "Befunge"),
        (Facet.SPOKEN_LANGUAGE, "German", "de"),
        (Facet.SPOKEN_LANGUAGE, "deu", "de"),
        (Facet.SPOKEN_LANGUAGE, "fr-CA", "fr"),
        (Facet.SPOKEN_LANGUAGE, "pt_BR", "pt"),
        (Facet.SPOKEN_LANGUAGE, "Klingon", "Klingon"),
        (Facet.DOMAIN, "Tool use", "tool-use"),
        (Facet.DOMAIN, "law", "law"),
    ],
)
def test_labels_are_the_vocabularys_values(facet: Facet, label: str, value: str) -> None:
    assert known_value(facet, label) == value


def test_a_rows_own_columns_come_before_nothing_else() -> None:
    columns = {Facet.SPOKEN_LANGUAGE: "lang"}
    cells = {"lang": " Hebrew ", "domain": "law", "programming_language": 3}
    assert own_labels(columns, cells) == {Facet.SPOKEN_LANGUAGE: "he", Facet.DOMAIN: "law"}
    assert own_labels(columns, {"lang": "", "domain": None, "programming_language": "a\nb"}) == {}

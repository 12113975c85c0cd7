"""A value of a facet by the names that data sets give it."""

from __future__ import annotations

import pytest

from app.facet_names import known_value
from app.facets import Facet


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

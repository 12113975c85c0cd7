"""A row's own labels, in the words of the facets' vocabularies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.facet_names import known_value
from app.facets import Facet

LONGEST_LABEL = 80


def own_labels(columns: Mapping[Facet, str], cells: Mapping[str, Any]) -> dict[Facet, str]:
    """The values of facets that a row names itself: in the column given for a facet, or else in
    the one called like it."""
    found = {}
    for facet in Facet:
        value = cells.get(columns.get(facet, facet.value))
        if isinstance(value, str) and (label := value.strip()) and label.isprintable():
            found[facet] = known_value(facet, label[:LONGEST_LABEL])
    return found

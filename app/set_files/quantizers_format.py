"""The fields of a quantizers YAML: what each may hold, and a sentence with its line when it does
not.

The format is that of https://github.com/mratsim/quantizers (``calibration_set`` at the top, in it
``max_seq_length``, ``shuffle``, ``seed``, ``datasets``). Calibrant writes what the format has no
field for under a key ``calibrant``, which that tool does not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from app.errors import Refused
from app.facets import Facet
from app.nearest import nearest
from app.validation import kind, shown
from app.yaml_lines import Place

ROOT = "calibration_set"
OWN = "calibrant"
SET_KEYS = ("_templates", "max_seq_length", "shuffle", "seed", "datasets", OWN)
ENTRY_KEYS = (
    "dataset", "subset", "split", "columns", "formatter", "num_samples", "streaming",
    "formatter_params", "category", "tags", "license", "revision", OWN,
)  # fmt: skip
# What the format takes where a field is missing.
DEFAULT_LENGTH, DEFAULT_SEED = 4096, 42


@dataclass(frozen=True)
class Entry:
    """One entry of ``datasets``; ``lines`` gives the line of each of its keys.

    ``category`` is what a key of the entry says; ``unknown`` are keys the format does not have.
    """

    line: int
    lines: Mapping[str, int]
    dataset: str
    subset: str | None
    split: str
    columns: tuple[str, ...]
    formatter: str
    rows: int | Literal["all"]
    streaming: bool
    params: Mapping[str, Any]
    category: str | None
    tags: Mapping[Facet, str]
    license: str | None
    revision: str | None
    own: Mapping[str, Any]
    unknown: Mapping[str, Any]


class Fields:
    """Reads the fields of one mapping of a file, and refuses what is wrong by name and line."""

    def __init__(
        self, given: Mapping[str, Any], place: Place, lines: Mapping[Place, int], where: str
    ) -> None:
        self.given = given
        self.place = place
        self._lines = lines
        self.where = where

    def line(self, *keys: str) -> int:
        """The line of a key, or of the mapping where it is missing."""
        return self._lines.get((*self.place, *keys), self._lines.get(self.place, 1))

    def refused(self, key: str, problem: str) -> Refused:
        """The sentence about a field."""
        return Refused(f"{self.where}, line {self.line(key)}, {key}: {problem}.")

    def unknown(self, known: Iterable[str]) -> dict[str, Any]:
        """What stands under keys that are not known, as plain JSON values."""
        return {str(key): plain(self.given[key]) for key in self.given if key not in set(known)}

    def text(self, key: str, most: int = 200) -> str | None:
        """A text, None where the key is missing or empty."""
        value = self.given.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.refused(
                key, f"{shown(value)} is {kind(value)}, not a text: put it in quotes"
            )
        if not value.strip() or len(value) > most:
            raise self.refused(key, f"give a text of 1 to {most} characters")
        return value

    def required_text(self, key: str) -> str:
        """A text that must be there."""
        value = self.text(key)
        if value is None:
            close = nearest(key, [str(name) for name in self.given if name not in ENTRY_KEYS])
            raise self.refused(key, f"it is missing{close}")
        return value

    def number(self, key: str, least: int, most: int, default: int) -> int:
        """A whole number."""
        value = self.given.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.refused(key, f"{shown(value)} is {kind(value)}, not a whole number")
        if not least <= value <= most:
            raise self.refused(key, f"{shown(value)} is not from {least:,} to {most:,}")
        return value

    def truth(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self.given.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refused(key, f"{shown(value)} is {kind(value)}: write true or false")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """A mapping with texts for keys."""
        value = self.given.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self.refused(key, f"{shown(value)} is {kind(value)}, not keys with values")
        return {str(name): plain(one) for name, one in value.items()}

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        value = self.given.get(key)
        if value is None:
            return ()
        if isinstance(value, str):
            raise self.refused(key, f"write it as a list: [{shown(value, quotes=False)}]")
        if not isinstance(value, list):
            raise self.refused(key, f"{shown(value)} is {kind(value)}, not a list")
        for one in value:
            if not isinstance(one, str) or not one or len(one) > 200:
                raise self.refused(key, f"{shown(one)} is {kind(one)}, not a column's name")
        return tuple(value)


def read_entry(given: Any, place: Place, lines: Mapping[Place, int], where: str) -> Entry:
    """One entry of ``datasets``. Raises Refused with the line and the field."""
    if not isinstance(given, dict):
        line = lines.get(place, 1)
        raise Refused(
            f"{where}, line {line}, datasets: {shown(given)} is {kind(given)}; an entry has keys: "
            "dataset, split, columns, formatter, num_samples."
        )
    fields = Fields(given, place, lines, where)
    return Entry(
        line=lines.get(place, 1),
        lines={str(key): fields.line(str(key)) for key in given},
        dataset=fields.required_text("dataset"),
        subset=fields.text("subset"),
        split=fields.required_text("split"),
        columns=fields.texts("columns"),
        formatter=fields.required_text("formatter"),
        rows=_rows(fields),
        streaming=fields.truth("streaming", False),
        params=fields.mapping("formatter_params"),
        category=fields.text("category", 80),
        tags=_tags(fields),
        license=fields.text("license"),
        revision=fields.text("revision"),
        own=fields.mapping(OWN),
        unknown=fields.unknown(ENTRY_KEYS),
    )


def _rows(fields: Fields) -> int | Literal["all"]:
    value = fields.given.get("num_samples")
    if value == "all":
        return "all"
    if value is None or isinstance(value, bool) or not isinstance(value, int):
        said = "it is missing" if value is None else f"{shown(value)} is {kind(value)}"
        raise fields.refused("num_samples", f"{said}: give a whole number of rows, or all")
    if not 1 <= value <= 10**8:
        raise fields.refused("num_samples", f"{shown(value)} rows: give 1 to 100,000,000, or all")
    return value


def _tags(fields: Fields) -> dict[Facet, str]:
    tags: dict[Facet, str] = {}
    for name, value in fields.mapping("tags").items():
        if name not in set(Facet):
            known = ", ".join(Facet)
            raise fields.refused("tags", f"{shown(name)} is no facet; there are {known}")
        if not isinstance(value, str) or not 1 <= len(value) <= 80:
            raise fields.refused("tags", f"{name} is {shown(value)}: give one value as a text")
        tags[Facet(name)] = value
    return tags


def plain(value: Any) -> Any:
    """A YAML value as JSON has it: dates and bytes as texts, sets as lists, keys as texts."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, set):
        return sorted(str(one) for one in value)
    if (isinstance(value, float) and value != value) or value in (float("inf"), float("-inf")):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)

"""What two jobs were told differently: their specifications as plain settings, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

# Where a job keeps its things says nothing of what it does.
OF_PLACE = frozenset(
    {"job_id", "directory", "sets_dir", "sources_dir", "checkpoint", "layers_from", "resume",
     "threads", "held_out", "model"}
)  # fmt: skip
LONGEST_LIST = 12
LONGEST_TEXT = 160
NONE = "none"


class Setting(BaseModel):
    """A setting by its name and its value in each job, None where a job has no such setting."""

    name: str
    values: list[str | None]


def settings_of(spec: Mapping[str, Any], versions: Mapping[str, str]) -> dict[str, str]:
    """Every setting of a job by name: recipe, composition, seed, and the ``versions`` of the
    packages that made its checkpoint."""
    found: dict[str, str] = {}
    for name, value in spec.items():
        if name not in OF_PLACE:
            _flatten("set" if name == "calibration" else name, value, found)
    for package, version in versions.items():
        found[f"version {package}"] = version
    return found


def differing(settings: Sequence[Mapping[str, str]]) -> tuple[list[Setting], int]:
    """The settings that are not the same in all jobs, and how many are. One that is none is the
    same as one that is not there."""
    names = dict.fromkeys(name for each in settings for name in each)
    rows = [Setting(name=name, values=[each.get(name) for each in settings]) for name in names]
    different = [row for row in rows if len({value or NONE for value in row.values}) > 1]
    return different, len(rows) - len(different)


def _flatten(name: str, value: Any, found: dict[str, str]) -> None:
    match value:
        case Mapping():
            for key, inner in value.items():
                _flatten(f"{name} {key}", inner, found)
        case list() | tuple() if value and all(isinstance(each, Mapping) for each in value):
            for number, each in enumerate(value, start=1):
                inner = {key: part for key, part in each.items() if key != "name"}
                _flatten(f"{name} {each.get('name') or number}", inner, found)
        case list() | tuple():
            found[name.replace("_", " ")] = _listed(value)
        case _:
            found[name.replace("_", " ")] = _plain(value)


def _listed(values: Sequence[Any]) -> str:
    if len(values) > LONGEST_LIST:
        return f"{', '.join(_plain(each) for each in values[:3])} … ({len(values):,})"
    return ", ".join(_plain(each) for each in values) or NONE


def _plain(value: Any) -> str:
    match value:
        case None:
            return NONE
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case _:
            text = str(value)
            return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"

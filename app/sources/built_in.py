"""The sources that come with Calibrant: the starter corpus, and data sets of the hub by name."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from app.sources.entry import HubOrigin, SourceEntry, StarterOrigin
from app.sources.starter_corpus import PACKS

TITLES: dict[str, str] = {
    "permissive": "Starter corpus, permissive licences and public domain",
    "cc-by-sa": "Starter corpus, Creative Commons Attribution-ShareAlike",
    "copyleft": "Starter corpus, GPL, GFDL, MPL and EPL",
}


@cache
def built_in_entries() -> dict[str, SourceEntry]:
    """By name, the starter packs first."""
    starter = [
        SourceEntry(name=pack, title=TITLES[pack], origin=StarterOrigin(), columns=("text",))
        for pack in PACKS
    ]
    text = files("app.sources").joinpath("seed_catalogue.yaml").read_text(encoding="utf-8")
    hub = [_hub_entry(document) for document in yaml.safe_load(text)]
    return {entry.name: entry for entry in (*starter, *hub)}


def _hub_entry(document: dict[str, Any]) -> SourceEntry:
    origin = HubOrigin.model_validate(document["origin"])
    title = " ".join(filter(None, [origin.id, origin.subset, origin.split]))
    return SourceEntry.model_validate({**document, "origin": origin, "title": title})

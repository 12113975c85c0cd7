"""Names for the sources of an imported file: those of the catalogue where it has them already."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from app.sources.entry import FolderOrigin, HubOrigin, SourceEntry, slug
from app.sources.service import RESERVED
from app.sources.starter_corpus import PACKS


class SourceNames:
    """Gives each source of a file its name. The same source twice is one."""

    def __init__(self, known: Sequence[SourceEntry]) -> None:
        self._known = list(known)
        self._taken = {*PACKS, *RESERVED, *(entry.name for entry in known)}
        self._made: list[SourceEntry] = []

    def settle(self, made: SourceEntry, *, is_named: bool, is_tagged: bool) -> SourceEntry:
        """The entry to use for ``made``: an equal one of the catalogue or of this file, else
        itself under a name that is free.

        ``is_named`` when the file gives the name, ``is_tagged`` when it gives the tags: where it
        does not, those of the catalogue are better than what a section's title says.
        """
        for entry in self._made:
            same_name = not is_named or entry.name == made.name
            if same_name and _content(entry, with_tags=True) == _content(made, with_tags=True):
                return entry
        for entry in self._known:
            same_name = not is_named or entry.name == made.name
            same = _content(entry, with_tags=is_tagged) == _content(made, with_tags=is_tagged)
            if same_name and same:
                return entry
        name = next(name for name in _names(made, is_named) if name not in self._taken)
        settled = made.model_copy(update={"name": name})
        self._taken.add(name)
        self._made.append(settled)
        return settled


def _names(entry: SourceEntry, is_named: bool) -> Iterator[str]:
    if is_named:
        yield entry.name
    match entry.origin:
        case HubOrigin(id=repository, split=split, subset=subset):
            base = slug(repository.rpartition("/")[2])
            yield base
            yield f"{base}-{slug(split)}"[:80].rstrip("-.")
            yield f"{base}-{slug(subset or 'default')[:20]}-{slug(split)}"[:80].rstrip("-.")
        case FolderOrigin(path=path):
            base = slug(path.name)
            yield base
        case _:
            base = "source"
    yield from (f"{base}-{number}" for number in range(2, 10_000))


def _content(entry: SourceEntry, *, with_tags: bool) -> str:
    """All a source's rows are made of, as a text to compare."""
    left_out = {"name", "title", "enabled", "set_aside_limit", "license"}
    document = entry.model_dump(mode="json", exclude=left_out | (set() if with_tags else {"tags"}))
    for sampling in ("rows_limit", "buffer_rows", "seed"):
        if not with_tags:
            document["origin"].pop(sampling, None)
    return json.dumps(document, sort_keys=True)

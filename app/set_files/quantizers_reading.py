"""A quantizers YAML that was read: each entry beside what was made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.calibration.spec import Slice
from app.prompts.rotation import HashedChoice
from app.set_files.quantizers_format import Entry, Fields
from app.set_files.section_comments import Comments, Heading
from app.sources.entry import SourceEntry


@dataclass(frozen=True)
class Part:
    """One entry, the section it stands in, and what was made of it."""

    entry: Entry
    heading: Heading | None
    title: str | None
    domain: str | None
    choice: HashedChoice | None
    source: SourceEntry
    slice: Slice


@dataclass(frozen=True)
class Reading:
    """A whole file that was read."""

    parts: Sequence[Part]
    comments: Comments
    fields: Fields
    document: Mapping[str, Any]

    def template_line(self, template: str) -> int:
        """The line a template is defined on: under ``_templates``, or at its first use."""
        for name, text in self.templates().items():
            if text == template:
                return self.fields.line("_templates", str(name))
        return next(
            part.entry.lines["formatter_params"]
            for part in self.parts
            if part.entry.params.get("prefix") == template
        )

    def templates(self) -> dict[str, Any]:
        """What stands under ``_templates``."""
        given = self.fields.given.get("_templates")
        return {str(key): value for key, value in given.items()} if isinstance(given, dict) else {}

    def unused_templates(self) -> dict[str, Any]:
        """Templates that no entry uses."""
        used = [part.entry.params.get("prefix") for part in self.parts]
        return {name: text for name, text in self.templates().items() if text not in used}

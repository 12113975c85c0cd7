"""An entry of the catalogue: all that is needed to fetch a source's rows, without a database."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from app.facet_names import known_value
from app.facets import Facet

# A name is a folder of the data directory: no separators, no leading dot.
SOURCE_NAME = r"^[a-z0-9][a-z0-9._-]{0,79}$"
HUB_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?$"
COMMIT = r"^[0-9a-f]{40}$"


def _matching(pattern: str, right: str) -> Any:
    """Holds a text to a pattern, with words of what would be right."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{text[:100]!r} cannot be used: {right}")
        return text

    return AfterValidator(check)


SourceName = Annotated[
    str,
    _matching(SOURCE_NAME, "give 1 to 80 small letters, digits and . _ -, a letter or digit first"),
    WithJsonSchema({"type": "string", "pattern": SOURCE_NAME}),
]
HubId = Annotated[
    str,
    _matching(HUB_ID, "give the id of a data set of the hub, owner/name"),
    WithJsonSchema({"type": "string", "pattern": HUB_ID}),
]
Column = Annotated[str, Field(min_length=1, max_length=200)]

# Rows of a hub data set that are kept. The largest calibration sets take some hundreds of rows of
# one source; a quota by language wants more to choose from.
ROWS_LIMIT = 2_000


class _Origin(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StarterOrigin(_Origin):
    """A pack of the starter corpus, which lies beside the program."""

    kind: Literal["starter"] = "starter"


class HubOrigin(_Origin):
    """A data set of the hub.

    ``revision`` is a branch, a tag or a commit; None is the newest commit of the main branch at
    the time of the fetch. ``rows_limit`` rows are kept, a seeded random sample; None keeps all.
    A streamed source is not downloaded whole: its shards are shuffled, then rows are drawn from a
    window of ``buffer_rows`` that moves over them, so rows near each other in a shard come
    together more often than chance would have it.
    """

    kind: Literal["hub"] = "hub"
    id: HubId
    subset: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    split: Annotated[str, Field(min_length=1, max_length=200)] = "train"
    revision: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    streaming: bool = False
    rows_limit: Annotated[int, Field(ge=1, le=10_000_000)] | None = ROWS_LIMIT
    buffer_rows: Annotated[int, Field(ge=1, le=1_000_000)] = 2_000
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class UploadOrigin(_Origin):
    """A file somebody gave. ``file`` is its name, ``sha256`` of its bytes as they came."""

    kind: Literal["upload"] = "upload"
    file: Annotated[str, Field(min_length=1, max_length=200)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    encoding: Annotated[str, Field(max_length=40)] = "utf-8"


class FolderOrigin(_Origin):
    """A folder of this machine, or one file of it, read in place at every fetch."""

    kind: Literal["folder"] = "folder"
    path: Path
    encoding: Annotated[str, Field(max_length=40)] = "utf-8"

    @model_validator(mode="after")
    def _path_is_absolute(self) -> FolderOrigin:
        if not self.path.is_absolute():
            raise ValueError(f"give the whole path of the folder: {self.path} is relative")
        return self


Origin = Annotated[
    StarterOrigin | HubOrigin | UploadOrigin | FolderOrigin, Field(discriminator="kind")
]
Kind = Literal["starter", "hub", "upload", "folder"]


class SourceEntry(BaseModel):
    """A source: where its rows come from and how they become conversations.

    ``columns`` are those the formatter reads, in its order; ``params`` are the formatter's own.
    A row's own labels stand in columns called as the facets, or as ``label_columns`` says; ``tags``
    label the rows that carry none themselves. Rows that do not fit the
    formatter are set aside; a fetch fails when there are more than ``set_aside_limit`` of them
    (None: it never fails for that).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: SourceName
    title: Annotated[str, Field(max_length=200)] = ""
    origin: Origin
    columns: tuple[Column, ...] = Field(default=(), max_length=50)
    formatter: Annotated[str, Field(max_length=80)] = "raw_text"
    params: dict[str, Any] = {}
    label_columns: dict[Facet, Column] = {}
    tags: dict[Facet, Annotated[str, Field(min_length=1, max_length=80)]] = {}
    license: Annotated[str, Field(max_length=200)] | None = None
    enabled: bool = True
    set_aside_limit: Annotated[int, Field(ge=0)] | None = None

    @field_validator("tags")
    @classmethod
    def _tags_by_their_names(cls, tags: dict[Facet, str]) -> dict[Facet, str]:
        """As the labels that rows carry: ``c++`` and ``C++`` are one language."""
        return {facet: known_value(facet, tag) for facet, tag in tags.items()}

    @property
    def recipe(self) -> str:
        """Ten characters of a hash over all that the rows depend on besides the revision: two
        entries with the same recipe and revision have the same rows."""
        document = self.model_dump(mode="json", exclude={"title", "enabled", "set_aside_limit"})
        for name in ("revision", "file", "path"):  # where it is, which is not what it is
            document["origin"].pop(name, None)
        content = json.dumps(document, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:10]


def slug(text: str) -> str:
    """A text as a source's name: ``ultrachat_200k`` → ``ultrachat-200k``."""
    short = re.sub(r"[^a-z0-9.]+", "-", text.casefold()).strip("-.")[:60].strip("-.")
    return short if re.match(r"[a-z0-9]", short) else "source"

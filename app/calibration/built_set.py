"""A calibration set on disk: an immutable directory named by the hash of its manifest.

``rows.parquet`` holds the rendered rows in the order they are fed, ``manifest.json`` what they
were made from (``identity``, whose hash is the id), what came out (``report``) and the hash of
every file. The manifest is written last: a directory that has one is whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from app.calibration.composition import SliceResult
from app.calibration.index import LeftOut
from app.calibration.totals import Shortfall
from app.errors import NotFound, Refused
from app.facets import Facet

MANIFEST = "manifest.json"
ROWS = "rows.parquet"
ID_LENGTH = 16
MANIFEST_FORMAT = 2

_TURN = pa.struct(
    [
        ("role", pa.string()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("tokens", pa.int32()),
    ]
)

# ``text`` is whole; ``turns`` are the characters of each message's words in it with the tokens
# left of them, ``cut_start`` to ``cut_end`` the characters that ``input_ids`` lost at the maximum
# length. ``named_value`` is what a prompt named, ``named_tokens`` the row's content where that is
# of no such value itself. ``duplicate_of`` is the first row of the set that says the same;
# ``sequence`` numbers packed sequences from 0.
ROW_SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("source", pa.string()),
        ("slice", pa.string()),
        ("spoken_language", pa.string()),
        ("programming_language", pa.string()),
        ("domain", pa.string()),
        ("license", pa.string()),
        ("text", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("fed_tokens", pa.int32()),
        ("named_tokens", pa.int32()),
        ("full_tokens", pa.int32()),
        ("prompt_tokens", pa.int32()),
        ("named_facet", pa.string()),
        ("named_value", pa.string()),
        ("turns", pa.list_(_TURN)),
        ("cut_start", pa.int32()),
        ("cut_end", pa.int32()),
        ("duplicate_of", pa.string()),
        ("sequence", pa.int32()),
    ]
)


class FacetAmount(BaseModel):
    """Rows of one facet value and the tokens of their assistants' words (``fed_tokens``); rows
    whose prompt names the value, and the same tokens of those that are of another value
    (``named_tokens``)."""

    rows: int = 0
    fed_tokens: int = 0
    named_rows: int = 0
    named_tokens: int = 0


class SetAside(BaseModel):
    """A row that cannot be rendered: its prompt or the chat template refused it."""

    source: str
    row: str
    reason: str


class SliceReport(BaseModel):
    """One slice of a built set: what it asked for, in tokens (``budget``) or rows
    (``asked_rows``), what it got, and what it lost at the maximum length."""

    name: str
    budget: int | None
    asked_rows: int | None = None
    tokens: int
    rows: int
    cut_tokens: int = 0
    cut_rows: int = 0

    @classmethod
    def of(cls, result: SliceResult, written: Mapping[str, int]) -> SliceReport:
        """A slice of a composition, with the sums over its rows as they were written."""
        return cls(
            name=result.name,
            budget=result.budget,
            asked_rows=result.asked_rows,
            **{name: written[name] for name in ("tokens", "rows", "cut_tokens", "cut_rows")},
        )


class Report(BaseModel):
    """What came out of a build. ``tokens`` counts whole rows, prompt and template included;
    ``cut_tokens`` those lost at the maximum length, ``prompt_tokens`` those of prompts alone.
    ``duplicates`` counts rows that say what an earlier one of the set says, ``sequences`` those
    that rows are packed into (None: they are not)."""

    rows: int
    tokens: int
    cut_tokens: int
    prompt_tokens: int = 0
    duplicates: int = 0
    sequences: int | None = None
    left_out: LeftOut = LeftOut()
    facets: dict[Facet, dict[str, FacetAmount]]
    slices: list[SliceReport]
    set_aside: list[SetAside]
    shortfalls: list[Shortfall]
    warnings: list[str]


@dataclass(frozen=True)
class BuiltSet:
    """A built set: where it lies, what it is made from and what is in it."""

    directory: Path
    id: str
    identity: dict[str, Any]
    report: Report

    @property
    def name(self) -> str:
        """The name its composition gives it."""
        return str(self.identity["spec"]["name"])

    @property
    def rows(self) -> int:
        """Rows in the set."""
        return self.report.rows

    @property
    def tokens(self) -> int:
        """Tokens in the set."""
        return self.report.tokens

    @property
    def facets(self) -> dict[Facet, dict[str, FacetAmount]]:
        """Amounts by facet and value."""
        return self.report.facets

    @property
    def set_aside(self) -> list[SetAside]:
        """Rows the template refused."""
        return self.report.set_aside

    @property
    def shortfalls(self) -> list[Shortfall]:
        """Values that could not be filled."""
        return self.report.shortfalls

    @property
    def warnings(self) -> list[str]:
        """Sentences for the person."""
        return self.report.warnings

    @property
    def manifest_file(self) -> Path:
        """The manifest on disk."""
        return self.directory / MANIFEST

    @property
    def rows_file(self) -> Path:
        """The rows on disk."""
        return self.directory / ROWS

    def table(self, columns: list[str] | None = None) -> pa.Table:
        """The rows, all columns or some."""
        return pq.read_table(self.rows_file, columns=columns)

    def as_json(self) -> dict[str, Any]:
        """The document of ``calibrant sets build --json``."""
        head = {"id": self.id, "name": self.name, "manifest": str(self.manifest_file)}
        return {**head, **self.report.model_dump(mode="json")}


def set_id(identity: dict[str, Any]) -> str:
    """The name of a set: the first 16 hex digits of the SHA-256 of its canonical identity."""
    return hashlib.sha256(canonical(identity)).hexdigest()[:ID_LENGTH]


def canonical(document: object) -> bytes:
    """JSON in one way of writing it: sorted keys, no spaces, UTF-8."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def identities(sets_dir: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The directories of built sets, of older formats too, and what each is made from.

    One whose manifest cannot be read is left out: it is known to be of nothing.
    """
    for file in sorted(sets_dir.glob(f"[!.]*/{MANIFEST}")):
        try:
            identity = json.loads(file.read_bytes())["identity"]
        except (KeyError, TypeError, ValueError):
            continue
        if isinstance(identity, dict):
            yield file.parent, identity


def load_built_set(directory: Path) -> BuiltSet:
    """A built set from its directory.

    Raises NotFound when there is none, Refused when its manifest is not what its name says.
    """
    file = directory / MANIFEST
    if not file.is_file():
        raise NotFound(f"There is no built set in {directory}: it has no {MANIFEST}.")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        identity = manifest["identity"]
        report = Report.model_validate(manifest["report"])
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(
            f"{file} is not the manifest of a built set ({error!r}): remove its directory, and the "
            "next job builds it again."
        ) from error
    if manifest.get("id") != set_id(identity):
        raise Refused(f"{file} was changed after it was built: its id does not fit its content.")
    return BuiltSet(directory, manifest["id"], identity, report)

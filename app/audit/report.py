"""What an audit says of a built set: plain data, the same for the page, the command and scripts."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from app.facets import Facet

Severity = Literal["error", "warning", "note"]
FindingKind = Literal[
    "leak", "named_but_absent", "asked_in_vain", "named_more_than_fed", "mislabelled",
    "cut", "duplicates", "boilerplate", "one_long_row",
    "fed_but_unlabelled", "counted_in_rows", "not_checked",
]  # fmt: skip


class Finding(BaseModel):
    """Something a person should know before a job uses the set: ``sentence`` what it is, with its
    numbers, ``advice`` what to do. ``facet``, ``values``, ``slice`` say what it is about."""

    kind: FindingKind
    severity: Severity
    sentence: str
    advice: str
    facet: Facet | None = None
    values: list[str] = []
    slice: str | None = None
    rows: list[str] = []


class ValueTruth(BaseModel):
    """One value of a facet, as the set is labelled and as its content was found.

    ``labelled_…`` are rows that carry the label and the tokens of their content; ``named_…`` rows
    whose prompt asks for the value, ``named_only_…`` those of them whose content has none of it,
    with the tokens of that content; ``found_…`` rows with content of this value and its tokens, by
    role. A domain is not detected: its ``found_…`` are None.
    """

    value: str
    label: str
    labelled_rows: int = 0
    labelled_tokens: int = 0
    named_rows: int = 0
    named_only_rows: int = 0
    named_only_tokens: int = 0
    found_rows: int | None = None
    found_tokens: int | None = None
    found_by_role: dict[str, int] = {}
    unlabelled_rows: int = 0
    unlabelled_tokens: int = 0
    examples: list[str] = []


class Confusion(BaseModel):
    """Rows labelled with one value whose content was found to be something else."""

    facet: Facet
    label: str
    found: str
    rows: int
    tokens: int
    examples: list[str]


class Agreement(BaseModel):
    """How many labelled rows of a facet detection agrees with, does not tell apart from what it
    found, contradicts, or knows nothing of."""

    facet: Facet
    same: int = 0
    not_told_apart: int = 0
    different: int = 0
    unknown: int = 0


class RoleTokens(BaseModel):
    """The words of one role, in tokens. The role ``template`` is what stands around the words."""

    role: str
    turns: int
    tokens: int
    share: float


class Repeated(BaseModel):
    """A line that stands in many rows outside the assistant's words."""

    text: str
    role: str
    rows: int
    tokens: int


class Boilerplate(BaseModel):
    """Tokens every row pays for saying the same: the template's, and lines that repeat."""

    template_tokens: int
    repeated_tokens: int
    share: float
    lines: list[Repeated]


class Bin(BaseModel):
    """Rows of ``low`` to below ``high`` tokens."""

    low: int
    high: int
    rows: int
    tokens: int


class Lengths(BaseModel):
    """Row lengths in tokens as they are fed: percentiles by row, a histogram, what was cut, and
    the share of all tokens that the longest hundredth of the rows has."""

    shortest: int
    p10: int
    median: int
    p90: int
    p99: int
    longest: int
    mean: float
    cut_rows: int
    cut_tokens: int
    longest_rows: int
    longest_share: float
    bins: list[Bin]


class SliceLoss(BaseModel):
    """One slice: what it has, and what the maximum length cost it."""

    name: str
    rows: int
    tokens: int
    share: float
    cut_rows: int
    cut_tokens: int
    cut_share: float


class SourceShare(BaseModel):
    """One source: its rows and tokens in the set."""

    name: str
    rows: int
    tokens: int
    share: float


class DuplicateGroup(BaseModel):
    """Rows that say the same, the first of them the leader, and how similar each is to it."""

    rows: list[str]
    similarities: list[float]
    tokens: int


class RowLeak(BaseModel):
    """A held-out row that a row of the set says too."""

    row: str
    held_out: str
    similarity: float


class Audit(BaseModel):
    """The whole report. ``held_out_rows`` is None where there was no held-out part to look at;
    ``named_but_absent`` (by prompts), ``fed_but_unlabelled`` and ``asked_in_vain`` (by the
    composition) list values by facet; ``algorithm`` is the version of everything that looked."""

    algorithm: str = ""
    set_id: str
    name: str
    rows: int
    tokens: int
    verdict: str
    findings: list[Finding]
    facets: dict[Facet, list[ValueTruth]]
    agreement: list[Agreement]
    confusions: list[Confusion]
    named_but_absent: dict[Facet, list[str]]
    fed_but_unlabelled: dict[Facet, list[str]]
    asked_in_vain: dict[Facet, list[str]]
    roles: list[RoleTokens]
    boilerplate: Boilerplate
    lengths: Lengths
    slices: list[SliceLoss]
    sources: list[SourceShare]
    duplicate_rows: int
    duplicates: list[DuplicateGroup]
    held_out_rows: int | None
    leaks: list[RowLeak]
    seconds: float = 0.0

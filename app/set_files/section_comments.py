"""What a calibration file says in its comments: sections, their sizes, entries put aside.

The seed's format has no field for a category. Its author writes it above the entries:

    # Code / Programming / Software Engineering / Devops (336 samples)
    # ---------------------------------------------------------------

and lists the same titles in a summary at the top of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

RULE = re.compile(r"#\s*[-=~_*]{3,}\s*$")
COUNTED = re.compile(
    r"#\s*(?P<title>\S.*?)\s*\((?:total:\s*)?(?P<rows>\d[\d,]{0,12})\s+(?:samples?|rows?)\b[^()]*\)\s*$",
    re.IGNORECASE,
)
TOTAL = re.compile(r"\(\s*total\b", re.IGNORECASE)
ENTRY = re.compile(r"#\s*-\s*dataset:\s*(?P<name>\S+)")
COMMENT = re.compile(r"\s*(#.*)$")


@dataclass(frozen=True)
class Heading:
    """A section's heading: its title, the rows it says the section has (None: it says none)."""

    line: int
    title: str
    rows: int | None


@dataclass(frozen=True)
class PutAside:
    """An entry that stands in a comment; ``reason`` is what the comment above it says."""

    line: int
    name: str
    reason: str


@dataclass
class Comments:
    """The comments of a file that mean something, in their order.

    ``total`` is the number of rows the summary gives for the whole file.
    """

    headings: list[Heading] = field(default_factory=list)
    put_aside: list[PutAside] = field(default_factory=list)
    total: Heading | None = None

    def heading_of(self, line: int) -> Heading | None:
        """The heading that an entry on this line stands under."""
        above = [heading for heading in self.headings if heading.line < line]
        return above[-1] if above else None


def read_comments(text: str, skip: Iterable[range] = ()) -> Comments:
    """The sections and the entries put aside of a file. ``skip`` are lines (from 1) inside of
    texts, where ``#`` begins no comment."""
    inside = {number for lines in skip for number in lines}
    comments: dict[int, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        found = COMMENT.match(line)
        if found and number not in inside:
            comments[number] = found[1].rstrip()
    read = Comments()
    for number, comment in comments.items():
        _take(read, number, comment, comments)
    return read


def _take(read: Comments, number: int, comment: str, comments: dict[int, str]) -> None:
    counted = COUNTED.match(comment)
    if entry := ENTRY.match(comment):
        read.put_aside.append(PutAside(number, entry["name"], _reason(number, comments)))
    elif counted:
        heading = Heading(number, counted["title"], int(counted["rows"].replace(",", "")))
        if TOTAL.search(comment):
            read.total = heading
        else:
            read.headings.append(heading)
    elif RULE.match(comments.get(number + 1, "")) and not RULE.match(comment):
        title = comment.lstrip("# ").strip()
        # a title that ends a passage of prose is none
        if title and number - 1 not in comments:
            read.headings.append(Heading(number, title, None))


def _reason(number: int, comments: dict[int, str]) -> str:
    """The comment right above an entry put aside, from its first line on."""
    above: list[str] = []
    while (line := comments.get(number - 1 - len(above))) and not RULE.match(line):
        above.insert(0, line.lstrip("# ").strip())
    return " ".join(part for part in above if part)

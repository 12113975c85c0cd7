"""Categories, counts and entries put aside, read from comments."""

from __future__ import annotations

from app.set_files.section_comments import read_comments
from app.yaml_lines import multiline_scalars
from tests.app.set_files.samples import SHORT


def test_headings_totals_and_entries_put_aside() -> None:
    read = read_comments(SHORT, multiline_scalars(SHORT))
    assert read.total is not None
    assert (read.total.line, read.total.rows) == (12, 60)
    titles = [(heading.title, heading.rows) for heading in read.headings]
    assert titles[:3] == [("General chat", 8), ("Tool use", 10), ("Code / Programming", 31)]
    assert titles[-1] == ("Behavioral skills", 5)
    assert [(one.name, one.reason) for one in read.put_aside] == [
        ("Team-ACE/ToolACE", "Fail with minimax!")
    ]


def test_an_entry_belongs_to_the_heading_above_it() -> None:
    read = read_comments("# A (1 sample)\nx\n# B\n# ---\ny\n# prose that\n# goes on\n# ---\nz\n")
    said = [read.heading_of(line) for line in (2, 5, 9)]
    assert [heading.title for heading in said if heading] == ["A", "B", "B"]
    assert read.heading_of(1) is None


def test_no_comment_inside_of_a_text() -> None:
    text = "a: |\n  # A (9 samples)\n# B (1,200 rows)\nb: 1\n"
    read = read_comments(text, multiline_scalars(text))
    assert [(heading.title, heading.rows) for heading in read.headings] == [("B", 1200)]

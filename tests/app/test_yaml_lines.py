"""YAML with its lines, and what stops a file made to do harm."""

from __future__ import annotations

import pytest
import yaml

from app.errors import Refused
from app.yaml_lines import decoded, load_with_lines, multiline_scalars, sentence

BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(9)
)
MERGE_BOMB = "a: &a {x: 1}\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} {{<<: [*{chr(97 + n)}, *{chr(97 + n)}]}}\n" for n in range(24)
)


def test_every_key_and_item_has_its_line() -> None:
    document, lines = load_with_lines("a: 1\nb:\n  - x\n  - {c: 2,\n     d: 3}\n")
    assert document == {"a": 1, "b": ["x", {"c": 2, "d": 3}]}
    assert (lines[("a",)], lines[("b", 0)], lines[("b", 1, "d")]) == (1, 3, 5)


def test_anchors_and_merged_keys_are_unfolded_at_the_line_they_stand_on() -> None:
    document, lines = load_with_lines("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n")
    assert document["use"] == {"x": 1, "y": 3}
    assert (lines[("use", "x")], lines[("use", "y")]) == (1, 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1, 2", "did not find"),
        ("a: 'x", "line 1"),
        ("a: 1\nb: {c: 1,\n  c: 2}", "line 3, column 3: the key 'c' stands on line 2 already"),
        ("a: 2024-99-99", "line 1, column 4: this value cannot be read: month must be in 1..12"),
        ("a: 1" + "9" * 5000, "cannot be read"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: *nobody", "found undefined alias"),
        ("a: &a [*a]", "*a stands inside of what it names"),
        ("[" * 5000, "nested more than 40 levels deep"),
        ("a:\n" + "".join("  " * n + "- \n" for n in range(1, 60)), "nested more than 40"),
        (BOMB, "unfolds to more than 50,000 values"),
        (MERGE_BOMB, "unfolds to more than 50,000 values"),
        ("a: 1\n---\nb: 2", "another document"),
        ("[a]: 1", "unhashable key"),
        ("ok: 1\na: \x00", "line 2, column 4: control characters are not allowed"),
        ("a: \ud800", "is no character of UTF-8"),
    ],
)
def test_what_is_no_document_has_its_place(text: str, said: str) -> None:
    with pytest.raises(yaml.YAMLError) as error:
        load_with_lines(text)
    assert said in sentence(error.value, "set.yaml", text)


def test_text_of_several_lines_holds_no_comments() -> None:
    text = 'a: |\n  # no comment\n  x\nb: 1 # one\nc: "x\n  # y"\n'
    inside = {line for lines in multiline_scalars(text) for line in lines}
    assert {2, 3, 6} <= inside
    assert not inside & {4}


def test_encodings() -> None:
    assert decoded("a: é".encode(), "f") == decoded("a: é".encode("utf-16"), "f") == "a: é"
    assert decoded(b"\xef\xbb\xbfa: 1", "f") == "a: 1"
    with pytest.raises(Refused, match=r"f, line 2: byte 0xe9 is not UTF-8; save the file"):
        decoded(b"a: 1\nb: \xe9\n", "f")
    with pytest.raises(Refused, match=r"has 600,000 bytes; .* at most 500,000"):
        decoded(b"x" * 600_000, "f")

"""Prompt templates: what they may do, and that no template holds the process up."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.prompts.sandbox import MAX_SECONDS, PromptRefused, stable_hash
from app.prompts.template import MAX_TEMPLATE, PromptTemplate

ROW = {"text": "if a < b && c", "id": "r1", "tags": ["x", "y"]}


def render(source: str, value: str | None = None) -> str:
    return PromptTemplate(source).render(ROW, value)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("Summarize this:\n***\n", "Summarize this:\n***\n"),
        ("Write {{ value }}.\n", "Write C++.\n"),
        ("{{ row.text }}", "if a < b && c"),
        ("{{ row['text'] | upper | safe }}", "IF A < B && C"),
        ("{% for tag in row.tags %}{{ loop.index }}{{ tag }}{% endfor %}", "1x2y"),
        ("{% if 'C' in value %}yes{% else %}no{% endif %}", "yes"),
        ("{% set n = ['a', 'b'] %}{{ n[len(row.tags) % 2] ~ 1 }}", "a1"),
        ("{{ row.text.split(' ') | join('-') | replace('&', '+') }}", "if-a-<-b-++-c"),
        ("{{ sum([1, 2]) + max(3, 4) }} {{ zip([1], [2]) }} {{ row.tags | tojson }}",
         '7 [(1, 2)] ["x", "y"]'),
        ("{{ row.missing | default('none') }}", "none"),
    ],
)  # fmt: skip
def test_what_prompts_can_do(source: str, text: str) -> None:
    assert render(source, "C++") == text


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% for a in range(10**9) %}{% endfor %}", "range of more than"),
        ("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", "steps"),
        ("{{ 'a' * 10**9 }}", "repeats a value"),
        ("{{ [0] * 3000 * 3000 }}", "repeats a value"),
        ("{{ 9 ** (9 ** 9) }}", "more than a thousand digits"),
        ("{{ '%0999999999d' % 1 }}", "% on a text"),
        ("{{ '{:>999999999}'.format(1) }}", "cannot be called"),
        ("{{ 'a'.ljust(10**9) }}", "cannot be called"),
        ("{{ 'a' | center(10**9) }}", "center"),
        ("{% set x = 'ab' %}" + "{% set x = x ~ x %}" * 60 + "{{ x }}", "more than 4,000,000"),
        ("{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x }}", "prompt template"),
        ("{{ 'x' | replace('', 'y' * 3000000) | replace('', 'z' * 3000000) }}", "replaces"),
        ("{{ [0, 0] | join('y' * 3000000) | join('y' * 3000000) }}", "joins"),
        ("{{ [[1]] | sum(start=[]) }}", "sum takes numbers"),
        ("{% for a in range(9) %}{{ 'a' * 999999 }}{% endfor %}", "writes more than"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "Macro"),
        ("{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}", "recursive"),
        ("{% include 'secret' %}", "Include"),
        ("{{ ().__class__.__bases__ }}", "unsafe"),
        ("{{ lipsum(10**6) }}", "'lipsum': there are row and value"),
        ("{{ rwo.text }}", "'rwo': there are row and value"),
        ("{{ row.nothing }}", "nothing"),
        ("{{ 1 // 0 }}", "by zero"),
        ("{{ value }}", "'value' is undefined"),
        ("{{ 'a\\ud800' }}", "half of a character"),
        ("one\n{{ oops", "line 2"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "cannot be compiled"),
        ("{% for a in 'b' %}" * 30 + "{% endfor %}" * 30, "cannot be compiled"),
        ("{{ 1" + "0" * 6000 + " }}", "cannot be compiled"),
        ("x" * (MAX_TEMPLATE + 1), "at most 20,000 characters"),
    ],
)
def test_what_prompts_cannot_do(source: str, reason: str) -> None:
    started = time.monotonic()
    with pytest.raises(PromptRefused) as refused:
        render(source)
    assert reason in refused.value.sentence
    # the limit and what one last step may take: unbounded, each would run for hours
    assert time.monotonic() - started < 20 * MAX_SECONDS


def test_the_clock_stops_what_the_steps_do_not() -> None:
    slow = PromptTemplate(
        "{% for a in range(90000) %}{{ (row.text | upper | lower) == a }}{% endfor %}"
    )
    with pytest.raises(PromptRefused, match=r"longer than 2 seconds|writes more"):
        slow.render({"text": "x" * 3_000_000})


def test_a_template_that_was_stopped_does_not_hinder_the_next() -> None:
    looping = PromptTemplate("{% for a in range(99999) %}{{ 1 + 1 }}{% endfor %}")
    for _ in range(2):
        with pytest.raises(PromptRefused, match="steps"):
            looping.render(ROW)
    assert render("{{ row.id }}") == "r1"


def test_hash_is_the_same_in_every_process() -> None:
    code = (
        "from app.prompts.template import PromptTemplate as T;"
        "print(T('{{ hash(row|string) % 60 }} {{ hash(row.a) }}').render({'a': 'é', 'b': 2}))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
    assert stable_hash("é") == stable_hash("é") != stable_hash("e")


@given(st.text(max_size=200))
def test_any_text_renders_or_is_refused(source: str) -> None:
    with suppress(PromptRefused):  # and nothing else
        assert isinstance(render(source, "v"), str)


PIECES = st.sampled_from(
    ["{{", "}}", "{%", "%}", " for ", " in ", " if ", "endfor", "row", "value", "hash(", ")", "(",
     "[", "]", "'a'", "*", "**", "9", "|", "string", "range(", ",", "~", "set x =", "x", ".", "%"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=25))
def test_any_pieces_of_jinja_render_or_are_refused(pieces: list[str]) -> None:
    with suppress(PromptRefused):
        assert isinstance(render(" ".join(pieces), "v"), str)

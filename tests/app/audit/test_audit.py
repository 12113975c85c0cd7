"""The audit: the seed's defects are seen, a sound set is called sound, figures add up."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.audit.audit import HeldOut, audit
from app.audit.report import Audit, FindingKind
from app.audit.row import AuditedRow, AuditedTurn
from app.calibration.duplicates import signatures
from app.detection.content import detect
from app.facets import Facet
from app.sources.starter_corpus import load_rows as read_rows
from tests.app.audit.seedlike import seedlike_rows


@cache
def load_rows() -> list[dict]:
    return read_rows()


def kinds(report: Audit) -> set[FindingKind]:
    return {finding.kind for finding in report.findings}


def corpus_row(row: dict, **changed) -> AuditedRow:
    turn = AuditedTurn("assistant", row["text"], len(row["text"]) // 4)
    labels = {facet: row[facet.value] for facet in Facet}
    made = AuditedRow(row["id"], "permissive", "all", turn.tokens, turn.tokens, (turn,), labels)
    return replace(made, **changed)


@pytest.fixture(scope="module")
def seedlike() -> Audit:
    return audit(seedlike_rows(), detect, name="seed")


def test_languages_that_prompts_name_and_no_row_feeds_are_listed(seedlike: Audit) -> None:
    assert seedlike.named_but_absent == {
        Facet.SPOKEN_LANGUAGE: ["ar", "he", "hi", "ja"],
        Facet.PROGRAMMING_LANGUAGE: ["COBOL", "Haskell", "Zig"],
    }
    first, second = (f for f in seedlike.findings if f.kind == "named_but_absent")
    assert first.severity == second.severity == "error"
    assert "4 spoken languages are named by prompts of 24 rows and never fed" in first.sentence
    assert "Haskell" in second.sentence
    assert seedlike.verdict.startswith("The set is not what it says")


def test_tokens_are_counted_by_what_the_content_is(seedlike: Audit) -> None:
    code = {truth.value: truth for truth in seedlike.facets[Facet.PROGRAMMING_LANGUAGE]}
    assert code["Rust"].found_rows == 24
    assert code["Rust"].found_tokens == code["Rust"].labelled_tokens
    assert code["Rust"].found_by_role == {"assistant": code["Rust"].found_tokens}
    assert (code["Rust"].named_rows, code["Rust"].named_only_rows) == (6, 0)
    assert (code["Haskell"].named_rows, code["Haskell"].named_only_rows) == (6, 6)
    assert code["Haskell"].found_tokens == code["Haskell"].labelled_tokens == 0
    assert code["Haskell"].named_only_tokens > 0
    spoken = {truth.value: truth for truth in seedlike.facets[Facet.SPOKEN_LANGUAGE]}
    assert spoken["en"].found_by_role["assistant"] == spoken["en"].found_tokens > 0
    assert spoken["he"].found_tokens == 0


def test_prompts_that_repeat_and_the_template_are_boilerplate(seedlike: Audit) -> None:
    assert {line.text for line in seedlike.boilerplate.lines} >= {"Answer in Hebrew"}
    assert seedlike.boilerplate.template_tokens == 5 * seedlike.rows


def test_a_sound_set_is_called_sound() -> None:
    rows = [row for row in read_rows(["permissive"]) if row["spoken_language"]][:60]
    set_rows = [corpus_row(row) for row in rows]
    held_out = HeldOut([], signatures([]), signatures(row.words for row in set_rows))
    report = audit(set_rows, detect, held_out=held_out)
    assert report.findings == []
    assert report.verdict == "The set is what it says."


def test_a_label_that_is_not_true_is_found_with_its_rows() -> None:
    rows = [row for row in load_rows() if row["spoken_language"] == "de"][:20]
    labels = {Facet.SPOKEN_LANGUAGE: "he"}
    report = audit([corpus_row(row, labels=labels) for row in rows], detect)
    (confusion,) = report.confusions
    assert (confusion.label, confusion.found, confusion.rows) == ("he", "de", 20)
    assert confusion.examples == [row["id"] for row in rows[:5]]
    (finding,) = (f for f in report.findings if f.kind == "mislabelled")
    assert "Hebrew that looks like German (20 rows)" in finding.sentence
    assert report.fed_but_unlabelled[Facet.SPOKEN_LANGUAGE] == []


def test_what_is_fed_and_labelled_by_nobody_is_listed() -> None:
    rows = [row for row in load_rows() if row["programming_language"] == "Rust"][:10]
    report = audit([corpus_row(row, labels={}) for row in rows], detect)
    assert report.fed_but_unlabelled[Facet.PROGRAMMING_LANGUAGE] == ["Rust"]
    assert "fed_but_unlabelled" in kinds(report)


def test_one_label_does_not_hide_what_most_rows_lack() -> None:
    rows = [row for row in load_rows() if row["spoken_language"] == "de"][:10]
    labels = {Facet.SPOKEN_LANGUAGE: "de"}
    one, *others = (corpus_row(row, labels={}) for row in rows)
    labelled = dataclasses.replace(one, labels=labels)
    report = audit([labelled, *others], detect)
    assert report.fed_but_unlabelled[Facet.SPOKEN_LANGUAGE] == ["de"]
    (finding,) = (f for f in report.findings if f.kind == "fed_but_unlabelled")
    assert "in rows without a spoken language, more than in rows labelled so" in finding.sentence
    most = [dataclasses.replace(row, labels=labels) for row in others]
    assert audit([one, *most], detect).fed_but_unlabelled[Facet.SPOKEN_LANGUAGE] == []


def test_a_language_not_told_from_the_label_does_not_contradict_it() -> None:
    code = "int add(int a, int b) {\n  return a + b;\n}\n" * 4
    turn = AuditedTurn("assistant", code, 60)
    labels = {Facet.PROGRAMMING_LANGUAGE: "CUDA"}
    report = audit([AuditedRow("a", "s", "p", 60, 60, (turn,), labels)], detect)
    agreement = report.agreement[1]
    assert (agreement.not_told_apart, agreement.different) == (1, 0)


def test_duplicates_and_leaks_are_named_with_their_rows() -> None:
    rows = load_rows()[:40]
    again = corpus_row(rows[3], row_id="again")
    said = signatures([rows[5]["text"] + " Indeed.", "something else entirely, of no row here"])
    set_rows = [*map(corpus_row, rows), again]
    taught = signatures(row.words for row in set_rows)
    held_out = HeldOut(["held-5", "held-x"], said, taught)
    report = audit(set_rows, detect, held_out=held_out)
    (group,) = report.duplicates
    assert (group.rows, group.similarities) == ([rows[3]["id"], "again"], [1.0, 1.0])
    (leak,) = report.leaks
    assert (leak.row, leak.held_out) == (rows[5]["id"], "held-5")
    assert report.findings[0].kind == "leak"
    assert report.findings[0].severity == "error"
    assert "duplicates" in kinds(report)


def test_one_long_row_and_what_the_cut_cost() -> None:
    rows = [corpus_row(row) for row in load_rows()[:99]]
    long = corpus_row(load_rows()[99], tokens=9_000, full_tokens=20_000, slice="long")
    report = audit([*rows, long], detect)
    assert report.lengths.longest_rows == 1
    assert report.lengths.longest_share == pytest.approx(9_000 / report.tokens)
    assert (report.lengths.cut_rows, report.lengths.cut_tokens) == (1, 11_000)
    loss = {part.name: part for part in report.slices}["long"]
    assert (loss.cut_tokens, loss.cut_share) == (11_000, pytest.approx(0.55))
    assert {"one_long_row", "cut"} <= kinds(report)


def test_no_rows_give_a_report() -> None:
    report = audit([], detect)
    assert (report.rows, report.tokens, report.facets[Facet.DOMAIN]) == (0, 0, [])


turns_of = st.lists(
    st.tuples(
        st.sampled_from(["system", "user", "assistant", "tool"]),
        st.sampled_from(["", "Answer in Hebrew", "const x = () => 1;\n" * 9, "Guten Tag " * 9]),
        st.integers(0, 400),
    ),
    max_size=4,
)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(turns_of, st.integers(0, 50), st.integers(0, 90)), max_size=12))
def test_parts_sum_to_the_whole(drawn: list) -> None:
    rows = []
    for number, (turns, template, lost) in enumerate(drawn):
        words = tuple(AuditedTurn(*turn) for turn in turns)
        tokens = template + sum(turn.tokens for turn in words)
        rows.append(AuditedRow(f"r{number}", "s", f"p{number % 2}", tokens, tokens + lost, words))
    report = audit(rows, detect)
    total = sum(row.tokens for row in rows)
    assert report.tokens == total == sum(part.tokens for part in report.slices)
    assert sum(role.tokens for role in report.roles) == total
    assert sum(one.tokens for one in report.lengths.bins) == total
    assert sum(one.rows for one in report.lengths.bins) == report.rows == len(rows)
    assert report.lengths.cut_tokens == sum(part.cut_tokens for part in report.slices)
    for facet in (Facet.SPOKEN_LANGUAGE, Facet.PROGRAMMING_LANGUAGE):
        found = sum(truth.found_tokens or 0 for truth in report.facets[facet])
        assert found <= sum(row.content_tokens for row in rows) + 2 * len(rows)
    assert Audit.model_validate_json(report.model_dump_json()) == report


def test_the_order_of_rows_changes_no_figure() -> None:
    rows = [*seedlike_rows(3), *(corpus_row(row) for row in load_rows()[:30])]
    shuffled = random.Random(3).sample(rows, len(rows))
    one, other = audit(rows, detect), audit(shuffled, detect)
    assert one.facets.keys() == other.facets.keys()
    assert [f.sentence for f in one.findings] == [f.sentence for f in other.findings]
    assert one.lengths == other.lengths
    assert np.isclose(one.boilerplate.share, other.boilerplate.share)

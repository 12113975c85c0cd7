"""Auditing a built set: from the rows on disk to the report beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.audit import service as auditing
from app.audit.report import Audit
from app.audit.service import AUDIT, audit_built_set, audited_rows, load_audit
from app.calibration.building import build_set
from app.calibration.built_set import BuiltSet, load_built_set
from app.calibration.spec import Prompt, SetSpec, Slice
from app.detection.cache import kept_detection
from app.facets import Facet
from app.sources.entry import SourceEntry, UploadOrigin
from app.sources.store import Row, write_revision
from tests.app.audit.seedlike import ASKED_CODE, ASKED_SPOKEN, seedlike_rows
from tests.app.calibration.essays import QUESTION, essays, quiz, spec_over
from tests.app.calibration.essays import write_source as write_fetched


def write_source(sources_dir: Path, name: str, conversations: list[list[dict]], **tags) -> None:
    """A source of conversations, as an upload leaves one."""
    entry = SourceEntry(
        name=name,
        origin=UploadOrigin(file=f"{name}.jsonl", sha256="0" * 64),
        license="MIT",
        tags=tags,
    )
    rows = [
        Row(number, messages, "\n".join(message["content"] for message in messages))
        for number, messages in enumerate(conversations, start=1)
    ]
    write_revision(entry, "0" * 64, rows, sources_dir)


def conversations_of(slice_name: str) -> list[list[dict]]:
    return [
        [{"role": turn.role, "content": turn.text} for turn in row.turns]
        for row in seedlike_rows(10)
        if row.slice == slice_name
    ]


def audited(built: BuiltSet, tmp_path: Path) -> Audit:
    places = {"sources_dir": tmp_path / "sources", "index_dir": tmp_path / "index"}
    return audit_built_set(built, **places)


@pytest.fixture
def places(model_dir: Path, tmp_path: Path) -> dict[str, Path]:
    return {"tokenizer_dir": model_dir, "sets_dir": tmp_path / "sets"}


def test_a_file_made_by_the_seeds_method_shows_its_defects(
    places: dict[str, Path], tmp_path: Path
) -> None:
    write_source(tmp_path / "sources", "seed-text", conversations_of("multilingual"))
    write_source(tmp_path / "sources", "seed-code", conversations_of("code"))
    spec = SetSpec(
        name="seed",
        sources=("seed-text", "seed-code"),
        slices=(Slice(name="all", rows="all"),),
        max_length=2048,
    )
    built = build_set(spec, **places)
    report = audited(built, tmp_path)
    assert (report.rows, report.tokens) == (built.rows, built.tokens)
    assert report.named_but_absent == {
        Facet.SPOKEN_LANGUAGE: sorted(ASKED_SPOKEN),
        Facet.PROGRAMMING_LANGUAGE: sorted(set(ASKED_CODE) - {"Rust"}),
    }
    assert report.fed_but_unlabelled == {
        Facet.SPOKEN_LANGUAGE: ["en"],
        Facet.PROGRAMMING_LANGUAGE: ["Rust"],
    }
    sentences = [f.sentence for f in report.findings if f.kind == "named_but_absent"]
    assert "never fed: Arabic, Hebrew, Hindi, Japanese" in sentences[0]


def test_a_prompt_that_rotates_over_languages_names_and_feeds_nothing(
    places: dict[str, Path], tmp_path: Path
) -> None:
    plain = [messages[1:] for messages in conversations_of("multilingual")]
    talks = [[{"role": "user", "content": "Go on."}, *messages] for messages in plain]
    write_source(tmp_path / "sources", "stories", talks, spoken_language="en")
    prompt = Prompt(
        template="Antworte auf {{ value }}:\n", facet=Facet.SPOKEN_LANGUAGE, values=("he", "tr")
    )
    spec = SetSpec(
        name="rotated",
        sources=("stories",),
        slices=(Slice(name="stories", rows="all", prompt=prompt),),
        max_length=2048,
    )
    report = audited(build_set(spec, **places), tmp_path)
    assert report.named_but_absent[Facet.SPOKEN_LANGUAGE] == ["he", "tr"]
    truths = {truth.value: truth for truth in report.facets[Facet.SPOKEN_LANGUAGE]}
    assert truths["he"].named_rows + truths["tr"].named_rows == report.rows
    assert truths["en"].found_tokens == truths["en"].labelled_tokens


def test_the_starter_corpus_is_what_it_says(places: dict[str, Path], tmp_path: Path) -> None:
    spec = SetSpec(
        name="starter",
        slices=(
            Slice(name="text", weight=1, balance=Facet.SPOKEN_LANGUAGE),
            Slice(name="code", weight=1, balance=Facet.PROGRAMMING_LANGUAGE),
        ),
        token_budget=60_000,
        max_length=200,
    )
    report = audited(build_set(spec, **places), tmp_path)
    spoken, code = report.agreement
    assert spoken.different == 0
    assert code.different <= 0.1 * (code.same + code.not_told_apart + code.different)
    assert report.held_out_rows == 582
    assert report.leaks == []
    roles = {role.role: role.tokens for role in report.roles}
    assert roles["assistant"] > 0
    assert sum(roles.values()) == report.tokens
    assert report.lengths.cut_rows > 0
    assert not any(finding.severity == "error" for finding in report.findings)


def test_short_answers_that_many_questions_have_are_no_duplicates(
    places: dict[str, Path], tmp_path: Path
) -> None:
    write_fetched(tmp_path / "sources", "quiz", quiz(60))
    report = audited(build_set(spec_over("quiz"), **places), tmp_path)
    assert report.held_out_rows
    assert (report.duplicate_rows, report.leaks) == (0, [])


def test_a_leak_is_found_by_the_words_of_reasoning_and_calls_too(
    places: dict[str, Path], tmp_path: Path
) -> None:
    def talks(change: Callable[[str], str]) -> Iterator[list[dict]]:
        for _, answer in essays(40):
            words = change(answer["content"])
            call = {"type": "function", "function": {"name": "write", "arguments": {"it": words}}}
            thought = {"role": "assistant", "content": "", "reasoning_content": words[::-1]}
            yield [QUESTION, thought | {"tool_calls": [call]}]

    said = [*talks(str), *talks(str.upper)]
    rows = [Row(number, talk, str(talk)) for number, talk in enumerate(said, start=1)]
    entry = SourceEntry(name="calls", origin=UploadOrigin(file="c.jsonl", sha256="0" * 64))
    write_revision(entry, "0" * 64, rows, tmp_path / "sources")
    spec = spec_over("calls", max_length=1024, reasoning="inline")
    report = audited(build_set(spec, **places), tmp_path)
    # the double of each held-out row is in the set
    assert report.held_out_rows == len({leak.held_out for leak in report.leaks}) == 11


def test_rows_hold_what_the_cut_left_of_each_turn(places: dict[str, Path]) -> None:
    for truncation in ("tail", "head", "middle"):
        spec = SetSpec(
            name="cut",
            slices=(Slice(name="all", weight=1),),
            token_budget=2_000,
            max_length=64,
            truncation=truncation,
        )
        built = build_set(spec, **places)
        entries = {row["row_id"]: row for row in built.table().to_pylist()}
        for row in audited_rows(built):
            entry = entries[row.row_id]
            assert row.tokens == len(entry["input_ids"])
            assert sum(turn.tokens for turn in row.turns) <= row.tokens
            assert row.content_tokens == entry["fed_tokens"]
            assert all(turn.text in entry["text"] for turn in row.turns)
            if row.full_tokens > row.tokens:
                lost = sum(len(turn.text) - turn.left for turn in row.turns)
                assert 0 < lost <= entry["cut_end"] - entry["cut_start"]


def test_the_report_is_kept_and_made_once(
    places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SetSpec(name="s", slices=(Slice(name="all", weight=1),), token_budget=2_000)
    built = build_set(spec, **places)
    assert load_audit(built.directory) is None
    report = audited(built, tmp_path)
    assert load_audit(built.directory) == report
    assert load_built_set(built.directory).id == built.id
    told: list[tuple[int, int]] = []
    again = audit_built_set(
        built,
        sources_dir=tmp_path / "sources",
        index_dir=tmp_path / "index",
        progress=lambda done, total: told.append((done, total)),
    )
    assert (again, told) == (report, [])
    monkeypatch.setattr(auditing, "ALGORITHM", "another")
    assert load_audit(built.directory) is None
    (built.directory / AUDIT).write_text("{")
    assert load_audit(built.directory) is None


def test_a_text_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Die Skalen aller Experten werden auf einmal gesucht."
    with kept_detection(tmp_path) as detect:
        first = detect(text)
    monkeypatch.setattr("app.detection.cache.detect", lambda _: pytest.fail("again"))
    with kept_detection(tmp_path) as detect:
        assert detect(text) == first


def test_leaks_are_not_looked_for_where_the_sources_are_gone(
    places: dict[str, Path], tmp_path: Path
) -> None:
    write_source(tmp_path / "sources", "seed-text", conversations_of("multilingual"))
    spec = SetSpec(name="s", sources=("seed-text",), slices=(Slice(name="all", rows="all"),))
    built = build_set(spec, **places)
    report = audit_built_set(
        built, sources_dir=tmp_path / "elsewhere", index_dir=tmp_path / "index"
    )
    assert report.held_out_rows is None
    assert "not_checked" in {finding.kind for finding in report.findings}
    assert json.loads((built.directory / AUDIT).read_text())["held_out_rows"] is None

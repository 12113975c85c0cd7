"""Held-out rows that say what a calibration row says."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from app.calibration.building import build_set
from app.calibration.leakage import refuse_leaks
from app.errors import CompositionRefused
from tests.app.calibration.essays import WORDS, essays, quiz, spec_over, talk, write_source


def test_held_out_rows_that_were_calibrated_on_are_an_error(
    model_dir: Path, tmp_path: Path
) -> None:
    talks = essays(40)
    again = [talk(one[1]["content"].upper()) for one in talks]
    write_source(tmp_path / "sources", "essays", talks + again)
    places = {"tokenizer_dir": model_dir, "sets_dir": tmp_path / "sets"}
    taught = build_set(spec_over("essays"), **places)
    asked = build_set(spec_over("essays", split="held_out"), **places)
    with pytest.raises(CompositionRefused, match="held-out rows say what a calibration row says"):
        refuse_leaks(taught.directory, asked.directory)
    clean = build_set(spec_over("essays", split="held_out", duplicates="drop"), **places)
    refuse_leaks(taught.directory, clean.directory)
    assert clean.rows < asked.rows


def test_the_same_short_answer_to_another_question_is_no_leak(
    model_dir: Path, tmp_path: Path
) -> None:
    questions = quiz(60)
    write_source(tmp_path / "sources", "quiz", questions)
    places = {"tokenizer_dir": model_dir, "sets_dir": tmp_path / "sets"}
    taught = build_set(spec_over("quiz"), **places)
    asked = build_set(spec_over("quiz", split="held_out"), **places)
    refuse_leaks(taught.directory, asked.directory)
    assert asked.rows > 1
    shouted = [[{**turn, "content": turn["content"].upper()} for turn in one] for one in questions]
    write_source(tmp_path / "sources", "shouted", shouted)
    again = build_set(spec_over("shouted", split="held_out"), **places)
    with pytest.raises(CompositionRefused, match="say what a calibration row says"):
        refuse_leaks(taught.directory, again.directory)


def test_held_out_rows_without_duplicates_never_leak(model_dir: Path, tmp_path: Path) -> None:
    """Nor by an answer that many long questions have, nor is a long system prompt that all rows
    share taken for what they say."""
    chance = random.Random(1)
    system = {"role": "system", "content": " ".join(chance.choices(WORDS, k=400))}
    refusal = {"role": "assistant", "content": " ".join(chance.choices(WORDS, k=50))}
    talks = [[system, *one] for one in quiz(40)]
    asked = [[*one[:2], refusal] for one in ([system, *one] for one in quiz(60)[40:])]
    write_source(tmp_path / "sources", "agents", talks + asked)
    places = {"tokenizer_dir": model_dir, "sets_dir": tmp_path / "sets"}
    taught = build_set(spec_over("agents", max_length=1024), **places)
    held = spec_over("agents", max_length=1024, split="held_out")
    with pytest.raises(CompositionRefused, match="say what a calibration row says"):
        refuse_leaks(taught.directory, build_set(held, **places).directory)
    once = build_set(held.model_copy(update={"duplicates": "drop"}), **places)
    refuse_leaks(taught.directory, once.directory)
    kept = build_set(spec_over("agents", max_length=1024, duplicates="drop"), **places)
    assert kept.report.duplicates == 0
    assert kept.rows == taught.rows - taught.report.duplicates
    answers = [row["text"].count(refusal["content"]) for row in kept.table().to_pylist()]
    assert sum(answers) == 1
    assert once.rows > 2

"""Held-out rows that say what a calibration row says."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.calibration.building import build_set
from app.calibration.leakage import refuse_leaks
from app.errors import CompositionRefused
from tests.app.calibration.essays import essays, quiz, spec_over, talk, write_source


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

"""Detection: what a text is, told from the text alone."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.detection.content import Found, detect, script_of, spoken_language
from app.detection.programming_language import programming_language
from app.facets import PROGRAMMING_LANGUAGES
from app.sources.starter_corpus import load_rows
from bench.detection import judged

HASKELL = """\
module Main where
import qualified Data.Map as Map
main :: IO ()
main = print (Map.toList counted)
  where counted = Map.fromListWith (+) [(word, 1) | word <- words "a b a"]
"""
MIXED = f"""\
Hier ist ein Programm, das zählt, wie oft jedes Wort in einem Text vorkommt:

```haskell
{HASKELL}```

Es gibt am Ende eine Liste von Paaren aus, geordnet nach dem Wort.
"""


# Of languages magika has no name for.
UNTRAINED = {
    "CUDA": """\
__global__ void add(float *x) {
  int i = blockIdx.x * blockDim.x;
  x[threadIdx.x + i] += 1;
}
""",
    "Metal": """\
#include <metal_stdlib>
kernel void add(device float * x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
  x[i] += 1;
}
""",
    "GLSL": """\
#version 450
layout(location = 0) in vec3 normal;
void main() { gl_Position = vec4(normal, 1.0); }
""",
    "LLVM IR": """\
define i32 @add(i32 %a, i32 %b) {
  %1 = add i32 %a, %b
  ret i32 %1
}
""",
    "Lean": """\
theorem twice (n : Nat) : n + n = 2 * n := by
  omega

lemma self (n : Nat) : n = n := by
  rfl
""",
    "Coq": """\
Lemma plus_0 : forall n, n + 0 = n.
Proof. intros n. induction n; simpl; auto. Qed.
""",
    "Pony": """\
actor Main
  new create(env: Env) =>
    env.out.print("Hello")
    let x: String iso = recover String end
""",
    "Visual Basic": """\
Imports System
Public Class Counter
  Public Sub Show()
    Console.WriteLine(1)
  End Sub
End Class
""",
}


@pytest.mark.parametrize(
    ("text", "script", "language"),
    [
        ("The scales of every expert are searched at once.", "Latin", "en"),
        ("Die Skalen aller Experten werden auf einmal gesucht.", "Latin", "de"),
        ("כל המומחים בשכבה נבדקים בבת אחת, והסולמות שלהם נשמרים.", "Hebrew", "he"),
        ("सभी विशेषज्ञों के पैमाने एक साथ खोजे जाते हैं।", "Devanagari", "hi"),
        ("全ての専門家の尺度を一度に探します。", "Kana", "ja"),
        ("所有专家的尺度都是一次搜索出来的。", "Han", "zh"),
        ("모든 전문가의 척도를 한 번에 찾습니다.", "Hangul", "ko"),
        ("Масштабы всех экспертов ищутся одновременно.", "Cyrillic", "ru"),
        ("Alle schalen van de experts worden tegelijk gezocht en bewaard.", "Latin", "nl"),
        ("OK", "Latin", None),
        ("12 + 30 = 42", None, None),
    ],
)
def test_script_and_spoken_language(text: str, script: str | None, language: str | None) -> None:
    assert script_of(text) == script
    assert spoken_language(text) == language
    (found,) = detect(text)
    assert (found.kind, found.script, found.spoken_language) == ("prose", script, language)


def test_prose_with_a_fence_is_both() -> None:
    before, code, after = detect(MIXED)
    assert (before.kind, before.spoken_language) == ("prose", "de")
    assert (code.kind, code.programming_language, code.spoken_language) == ("code", "Haskell", None)
    assert MIXED[code.start : code.end] == HASKELL
    assert (after.kind, after.spoken_language) == ("prose", "de")


def test_a_fence_without_a_tag_is_told_by_its_content() -> None:
    _, code, _ = detect(MIXED.replace("```haskell", "```"))
    assert (code.kind, code.programming_language) == ("code", "Haskell")
    unfinished = detect("So:\n```python\nprint(1)\n")
    assert unfinished[-1].programming_language == "Python"


def test_a_script_says_what_runs_it() -> None:
    assert programming_language("#!/usr/bin/env -S python3.11\nx").language == "Python"
    assert programming_language("#!/bin/sh -e\nls").language == "Bash/Shell"
    assert detect("#!/usr/bin/perl\nprint 1;")[0].programming_language == "Perl"


@pytest.mark.parametrize(("language", "code"), UNTRAINED.items())
def test_languages_the_model_was_not_trained_on(language: str, code: str) -> None:
    assert programming_language(code).language == language


def test_what_is_not_told_apart_is_said() -> None:
    told = programming_language("int add(int a, int b) {\n  return a + b;\n}\n" * 3)
    assert told.language == "C"
    assert {"C", "C++", "CUDA"} <= told.could_be


def test_worked_sums_and_formulas_are_prose() -> None:
    sums = (
        "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n"
        "Natalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.\n#### 72"
    )
    (found,) = detect(sums)
    assert (found.kind, found.spoken_language) == ("prose", "en")
    (found,) = detect("2 H2 + O2 -> 2 H2O; (NH4)2SO4 + 2 NaOH -> Na2SO4 + 2 NH3 + 2 H2O")
    assert found.kind == "prose"


def test_json_is_data_in_the_language_of_its_words() -> None:
    text = '{"name": "wetter", "beschreibung": "Gibt das Wetter an einem Ort für morgen zurück."}'
    (found,) = detect(text)
    assert (found.kind, found.spoken_language, found.programming_language) == ("data", "de", None)


def test_the_starter_corpus_is_what_it_is_labelled() -> None:
    rows = load_rows()[::25]
    outcomes = Counter()
    for row in rows:
        facet = "spoken_language" if row["spoken_language"] else "programming_language"
        outcomes[facet, judged(row[facet], facet, detect(row["text"]))[0]] += 1
    spoken = sum(count for (facet, _), count in outcomes.items() if facet == "spoken_language")
    code = len(rows) - spoken
    assert outcomes["spoken_language", "right"] >= 0.98 * spoken
    assert outcomes["programming_language", "right"] >= 0.75 * code
    assert outcomes["programming_language", "wrong"] <= 0.1 * code


@example("\ud800" + "ab " * 40)
@settings(deadline=None, max_examples=60)
@given(st.text(alphabet=st.sampled_from("ab `~\n{}é量א\ud800"), max_size=200))
def test_parts_lie_in_the_text_in_order_and_are_kept_as_they_are(text: str) -> None:
    found = detect(text)
    position = 0
    for part in found:
        assert position <= part.start < part.end <= len(text)
        assert set(part.could_be) <= set(PROGRAMMING_LANGUAGES)
        position = part.end
        assert Found.of_json(part.as_json()) == part


def test_the_web_process_starts_without_the_models() -> None:
    code = (
        "import sys; import app.main, app.cli\n"
        "print({'lingua', 'magika', 'onnxruntime'} & sys.modules.keys())"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout.strip() == "set()", printed.stderr

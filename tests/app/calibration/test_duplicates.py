"""Duplicates: what is taken for the same text, whatever the order, process or machine."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.calibration.duplicates import (
    PERMUTATIONS,
    THRESHOLD,
    fingerprint,
    groups,
    leaks,
    normalised,
    signatures,
    similarity,
)
from app.sources.starter_corpus import load_rows

LATIN = (
    "The router chooses which experts a token is sent to, and the norm before it is shared. " * 4
)
CHINESE = "量化一个混合专家模型时,校准集必须覆盖路由器会用到的每一个专家,否则尺度毫无意义。" * 3
# Of the same texts on any machine, in any process: what a built set records of its duplicates.
GOLDEN = "12fa96fbddb65442ad4ea80dbc7256657cdbae208e9d3e9bae2a2ca6263b4d0b"


def test_exact_duplicates_differ_in_case_spaces_and_forms_alone() -> None:
    same = [
        "Äpfel  und\tBirnen\n",
        "äpfel und birnen",
        "A\u0308PFEL UND BIRNEN",
        "ÄPFEL und Birnen",
    ]
    assert len({fingerprint(text) for text in same}) == 1
    assert fingerprint("äpfel und birne") != fingerprint(same[0])
    rows = signatures(same)
    assert (rows == rows[0]).all()


def test_a_signature_estimates_the_jaccard_similarity_of_shingles() -> None:
    texts = [row["text"] for row in load_rows()[:200]]
    rows = signatures([text[:900] for text in texts] + [text[150:1050] for text in texts])
    for number, text in enumerate(texts):
        expected = _jaccard(text[:900], text[150:1050])
        estimate = similarity(rows[number], rows[number + len(texts)])
        assert abs(estimate - expected) < 4.5 * 0.5 / PERMUTATIONS**0.5


@pytest.mark.parametrize("text", [LATIN, CHINESE], ids=["latin", "chinese"])
def test_a_changed_word_is_a_near_duplicate_in_any_script(text: str) -> None:
    middle = len(text) // 2
    changed = text[:middle] + "#" + text[middle + 1 :]
    other = "".join(random.Random(1).sample(text, len(text)))
    assert groups(signatures([text, other, changed])).tolist() == [0, 1, 0]


def test_different_texts_of_the_corpus_are_no_duplicates_and_a_planted_one_is_found() -> None:
    texts = [row["text"] for row in load_rows()]
    planted = texts[7][: int(0.93 * len(texts[7]))] + " and so it ends."
    found = groups(signatures([*texts, planted]))
    assert found[-1] == 7
    assert (found[:-1] == np.arange(len(texts))).all()


def test_empty_and_short_texts_have_signatures_of_their_own() -> None:
    found = groups(signatures(["", "  \n", "a", "b", "A", "日本"]))
    assert found.tolist() == [0, 0, 2, 3, 2, 5]
    assert signatures([]).shape == (0, PERMUTATIONS)
    assert groups(signatures([])).tolist() == []
    assert leaks(signatures([]), signatures(["a"])) == []


def test_groups_are_chains_whatever_the_order() -> None:
    text = load_rows()[0]["text"]
    chain = [text[start : start + 260] for start in range(0, 60, 12)]
    rows = signatures(chain)
    assert similarity(rows[0], rows[-1]) < THRESHOLD <= similarity(rows[0], rows[1])
    assert set(groups(rows).tolist()) == {0}


words = st.sampled_from(["expert", "router", "norm", "量化", "тензор", "scale", "x", ""])
texts_strategy = st.lists(
    st.lists(words, min_size=0, max_size=12).map(" ".join), min_size=1, max_size=30
)


@settings(deadline=None)
@given(texts_strategy, st.randoms())
def test_groups_are_a_partition_that_the_order_of_rows_leaves_alone(
    texts: list[str], chance: random.Random
) -> None:
    found = groups(signatures(texts))
    assert (found[found] == found).all()
    assert (found <= np.arange(len(texts))).all()
    order = chance.sample(range(len(texts)), len(texts))
    shuffled = groups(signatures([texts[place] for place in order]))
    same = {(i, j) for i in range(len(texts)) for j in range(len(texts)) if found[i] == found[j]}
    assert same == {
        (order[i], order[j])
        for i in range(len(texts))
        for j in range(len(texts))
        if shuffled[i] == shuffled[j]
    }
    exact = {(i, j) for i, a in enumerate(texts) for j, b in enumerate(texts) if _equal(a, b)}
    assert exact <= same


@settings(deadline=None)
@given(texts_strategy, texts_strategy)
def test_leaks_are_those_rows_whose_most_similar_row_is_similar_enough(
    calibration: list[str], held_out: list[str]
) -> None:
    taught, asked = signatures(calibration), signatures(held_out)
    found = {leak.held_out: leak for leak in leaks(taught, asked)}
    for number, row in enumerate(asked):
        alike = similarity(taught, row[None, :])
        assert number not in found or found[number].similarity == alike.max() >= THRESHOLD
        assert number not in found or found[number].calibration == int(alike.argmax())
        if _equal(calibration[int(alike.argmax())], held_out[number]):
            assert found[number].similarity == 1.0


def test_many_rows_with_a_long_prompt_in_common_are_parted_and_still_found() -> None:
    chance = random.Random(5)
    prompt = "".join(chance.choices("abcdefghijklmnop ", k=600))
    texts = [prompt + "".join(chance.choices("qrstuvwxyz ", k=200)) for _ in range(700)]
    rows = signatures([*texts, *(text + "!" for text in texts[:50])])
    found = groups(rows)
    assert found[700:].tolist() == list(range(50))


@pytest.mark.parametrize("kernel", ["scalar", "avx2", ""])
def test_signatures_are_the_same_in_any_process_and_on_any_machine(kernel: str) -> None:
    code = (
        "import hashlib, sys\n"
        "from app.calibration.duplicates import signatures\n"
        "rows = signatures(sys.argv[1:]).astype('<u4')\n"
        "print(hashlib.sha256(rows.tobytes()).hexdigest())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    if kernel:
        environment["RENSA_FORCE_KERNEL"] = kernel
    printed = subprocess.run(
        [sys.executable, "-c", code, LATIN, CHINESE, ""],
        env=environment,
        capture_output=True,
        check=True,
        text=True,
    )
    assert printed.stdout.strip() == GOLDEN
    here = signatures([LATIN, CHINESE, ""]).astype("<u4")
    assert hashlib.sha256(here.tobytes()).hexdigest() == GOLDEN


def _equal(one: str, other: str) -> bool:
    return normalised(one) == normalised(other)


def _jaccard(one: str, other: str) -> float:
    first, second = _shingles(normalised(one)), _shingles(normalised(other))
    return len(first & second) / len(first | second)


def _shingles(text: str) -> set[str]:
    return {text[start : start + 5] for start in range(max(1, len(text) - 4))}

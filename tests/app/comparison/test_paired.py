"""Paired differences and their chance, against cases worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.comparison.paired import (
    benjamini_hochberg,
    compare_rows,
    shared_rows,
    sign_flip_p,
)
from app.comparison.wording import method_of, sentences_of
from app.quality.evaluated_rows import RowsRefused
from tests.app.quality.evaluated import rows_of


def test_benjamini_and_hochbergs_own_example() -> None:
    # Benjamini and Hochberg 1995, section 3.2: at 5 % the four smallest of fifteen are rejected.
    p = np.array([0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240,
                  0.4262, 0.5719, 0.6528, 0.7590, 1.0000])  # fmt: skip
    adjusted = benjamini_hochberg(p)
    assert (adjusted <= 0.05).sum() == 4
    assert adjusted[0] == pytest.approx(0.0015)
    assert adjusted[3] == pytest.approx(0.0095 * 15 / 4)
    assert adjusted[-1] == 1


@given(st.lists(st.floats(0.0001, 1), min_size=1, max_size=60), st.randoms())
def test_adjusting_keeps_order_and_never_lowers(values: list[float], random) -> None:
    p = np.array(values)
    adjusted = benjamini_hochberg(p)
    assert (adjusted >= p - 1e-12).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= -1e-12).all()
    shuffled = list(range(len(values)))
    random.shuffle(shuffled)
    np.testing.assert_allclose(benjamini_hochberg(p[shuffled]), adjusted[shuffled])


def test_sign_flips_are_those_of_every_sign() -> None:
    differences = np.array([1.0, 2.0, -0.5, 4.0, 0.25, 1.5])
    exact = np.mean(
        [
            abs(float(np.dot(signs, differences))) >= differences.sum()
            for signs in itertools.product((-1, 1), repeat=6)
        ]
    )
    found = sign_flip_p(differences, [np.arange(6)], seed=0)[0]
    assert found == pytest.approx(exact, abs=0.02)


def test_two_rows_can_never_be_certain() -> None:
    found = sign_flip_p(np.array([5.0, 5.0]), [np.arange(2)], seed=0)[0]
    assert found == pytest.approx(0.5, abs=0.03)


def test_slices_too_small_to_tell_are_counted() -> None:
    rows = rows_of(kl=[1.0] * 9, tokens=[10] * 9, domain=["law"] * 5 + ["code"] * 4)
    said = " ".join(sentences_of("A", "B", compare_rows(rows, rows)))
    assert "2 slices of fewer than 6 rows could not be told" in said
    assert "; p 1.0000)." in said


def test_equal_models_do_not_differ() -> None:
    rows = rows_of(kl=[1.0, 2.0, 3.0], tokens=[10, 10, 10], domain=["law"] * 3)
    found = compare_rows(rows, rows)
    assert (found.overall.difference, found.overall.low, found.overall.high) == (0, 0, 0)
    assert (found.overall.p, found.slices[0].adjusted) == (1, 1)


def test_a_difference_weighs_tokens() -> None:
    before = rows_of(kl=[1.0, 2.0], tokens=[10, 30])
    after = rows_of(kl=[2.0, 5.0], tokens=[10, 30])
    one = compare_rows(before, after).overall
    assert (one.before, one.after) == (0.075, 0.175)
    assert one.difference == pytest.approx(0.1)
    # A bootstrap of two rows draws the first twice, the second twice, or both.
    assert (one.low, one.high) == (pytest.approx(0.1), pytest.approx(0.1))


def test_no_false_alarm_in_noise_and_a_real_change_is_found() -> None:
    random = np.random.default_rng(0)
    rows, slices = 800, 40
    names = [f"s{at % slices}" for at in range(rows)]
    kl = random.lognormal(0, 0.5, rows)
    tokens = [100] * rows
    before = rows_of(kl=kl, tokens=tokens, domain=names)
    noisy = kl * random.normal(1, 0.05, rows)
    calm = compare_rows(before, rows_of(kl=noisy, tokens=tokens, domain=names))
    assert not any(one.is_beyond_chance for one in calm.slices)
    moved = np.where(np.array(names) == "s7", noisy * 1.5, noisy)
    found = compare_rows(before, rows_of(kl=moved, tokens=tokens, domain=names))
    assert [one.value for one in found.slices if one.is_beyond_chance] == ["s7"]
    assert "A (s7" not in " ".join(sentences_of("A", "B", found))
    assert "B is worse beyond chance in s7 (+" in " ".join(sentences_of("A", "B", found))
    assert "39 slices" in " ".join(sentences_of("A", "B", found))
    assert "with 40 slices asked at once at most 5 %" in method_of(found)


def test_rows_are_paired_by_id_and_tokens() -> None:
    first = rows_of(kl=[1, 2, 3, 4], tokens=[5, 6, 7, 0], row_ids=["a", "b", "c", "d"])
    second = rows_of(kl=[30, 10, 20, 40], tokens=[7, 5, 9, 0], row_ids=["c", "a", "b", "d"])
    before, after = shared_rows(first, second)
    assert list(before.row_ids) == list(after.row_ids) == ["a", "c"]
    assert list(after.kl) == [10, 30]
    found = compare_rows(first, second)
    assert (found.shared, found.unshared) == (2, 2)
    assert any("2 rows that only one" in each for each in sentences_of("A", "B", found))


def test_different_rows_are_refused() -> None:
    first = rows_of(kl=[1, 2], tokens=[5, 6], row_ids=["a", "b"])
    second = rows_of(kl=[1, 2], tokens=[5, 6], row_ids=["c", "b"])
    with pytest.raises(RowsRefused, match="they share 1"):
        compare_rows(first, second)


def test_different_originals_are_refused() -> None:
    first, second = (rows_of(kl=[1, 2], tokens=[5, 6]) for _ in range(2))
    second.loss_base[:] *= 1.1
    with pytest.raises(RowsRefused, match="different originals"):
        compare_rows(first, second)


def test_thousands_of_slices_are_cut_to_the_largest() -> None:
    rows = 2_000
    names = [f"s{at // 2}" for at in range(rows)]
    kl = np.ones(rows)
    tokens = [10 + at for at in range(rows)]
    found = compare_rows(
        rows_of(kl=kl, tokens=tokens, domain=names), rows_of(kl=kl, tokens=tokens, domain=names)
    )
    assert (len(found.slices), found.slices_left_out) == (400, 600)
    assert "s999" in {one.value for one in found.slices}
    assert any("600 smaller slices are left out" in each for each in sentences_of("A", "B", found))

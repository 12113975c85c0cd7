"""What holds for any composition over any rows."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from app.calibration.composition import preview
from app.calibration.pool import Candidate, Pool
from app.calibration.spec import SetSpec, Slice
from app.facets import Facet

candidates = st.lists(
    st.builds(
        Candidate,
        row_id=st.integers(0, 10**6).map(str),
        tokens=st.integers(1, 600),
        spoken_language=st.sampled_from([None, "de", "en", "he"]),
        programming_language=st.sampled_from([None, "Go", "Rust", "C"]),
        domain=st.sampled_from([None, "code", "law"]),
    ),
    min_size=1,
    max_size=60,
    unique_by=lambda row: row.row_id,
)
slices = st.lists(
    st.builds(
        lambda size, facets, balance: (size, facets, balance),
        st.one_of(
            st.floats(0.01, 100).map(lambda weight: {"weight": weight}),
            st.integers(1, 8000).map(lambda tokens: {"tokens": tokens}),
            st.integers(1, 30).map(lambda rows: {"rows": rows}),
            st.just({"rows": "all"}),
        ),
        st.dictionaries(
            st.sampled_from([Facet.SPOKEN_LANGUAGE, Facet.PROGRAMMING_LANGUAGE]),
            st.lists(st.sampled_from(["de", "he", "Go", "Rust", "Pony"]), max_size=3),
            max_size=2,
        ),
        st.sampled_from([None, *Facet]),
    ),
    min_size=1,
    max_size=5,
)


@st.composite
def compositions(draw: st.DrawFn) -> tuple[SetSpec, list[Candidate]]:
    parts = [
        Slice(name=str(number), facets=facets, balance=balance, **size)
        for number, (size, facets, balance) in enumerate(draw(slices))
    ]
    budget, seed = draw(st.integers(1, 20_000)), draw(st.integers(0, 2**63 - 1))
    if all(part.is_fixed for part in parts) and draw(st.booleans()):
        return SetSpec(name="test", slices=tuple(parts), seed=seed), draw(candidates)
    spec = SetSpec(name="test", slices=tuple(parts), token_budget=budget, seed=seed)
    return spec, draw(candidates)


@given(compositions())
@settings(deadline=None, max_examples=200)
def test_no_budget_is_passed_and_no_row_stands_twice(
    case: tuple[SetSpec, list[Candidate]],
) -> None:
    spec, rows = case
    composition = preview(spec, Pool.of(rows))
    by_id = {row.row_id: row for row in rows}
    assert max(Counter(composition.row_ids).values(), default=1) == 1
    assert composition.tokens == sum(by_id[one].tokens for one in composition.row_ids)
    assert composition.tokens == sum(part.tokens for part in composition.slices)
    if spec.token_budget is not None:
        assert composition.tokens <= spec.token_budget
    pairs = list(zip(spec.slices, composition.slices, strict=True))
    fixed_tokens = sum(result.tokens for part, result in pairs if part.is_fixed)
    shared = [result.budget for part, result in pairs if not part.is_fixed]
    if shared:
        assert sum(shared) == composition.shared_budget == spec.token_budget - fixed_tokens
    for part, result in pairs:
        assert result.budget is None or result.tokens <= result.budget
        assert result.asked_rows is None or result.rows <= result.asked_rows
        assert part.tokens is None or result.budget == part.tokens
    assert len(composition.row_ids) == sum(part.rows for part in composition.slices)


@given(compositions())
@settings(deadline=None)
def test_rows_match_their_slice(case: tuple[SetSpec, list[Candidate]]) -> None:
    spec, rows = case
    composition = preview(spec, Pool.of(rows))
    by_id = {row.row_id: row for row in rows}
    by_name = {part.name: part for part in spec.slices}
    for row_id, name in zip(composition.row_ids, composition.slice_names, strict=True):
        part = by_name[name]
        for facet, listed in part.facets.items():
            assert not listed or by_id[row_id].value_of(facet) in listed
        assert part.balance is None or by_id[row_id].value_of(part.balance) is not None


@given(compositions(), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_the_rows_does_not_matter(
    case: tuple[SetSpec, list[Candidate]], chance: random.Random
) -> None:
    spec, rows = case
    shuffled = list(rows)
    chance.shuffle(shuffled)
    first, second = preview(spec, Pool.of(rows)), preview(spec, Pool.of(shuffled))
    assert first.row_ids == second.row_ids
    assert first.slice_names == second.slice_names
    assert first.quotas == second.quotas


@given(compositions())
@settings(deadline=None)
def test_a_value_left_behind_has_no_row_that_fits(case: tuple[SetSpec, list[Candidate]]) -> None:
    spec, rows = case
    composition = preview(spec, Pool.of(rows))
    taken = set(composition.row_ids)
    for part, result in zip(spec.slices, composition.slices, strict=True):
        if part.is_fixed:
            continue
        left = result.budget - result.tokens
        for quota in composition.quotas:
            if quota.slice == part.name and quota.rows == 0:
                free = [
                    row.tokens
                    for row in rows
                    if row.row_id not in taken
                    and row.value_of(quota.facet) == quota.value
                    and all(not v or row.value_of(f) in v for f, v in part.facets.items())
                ]
                assert min(free, default=left + 1) > left

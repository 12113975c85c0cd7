"""Rows chosen by slices, quotas and seed: what each gets, and what is refused."""

from __future__ import annotations

import random

import pytest

from app.calibration.composition import Composition, compose, preview
from app.calibration.pool import Candidate, Pool
from app.calibration.spec import SetSpec, Slice
from app.errors import CompositionRefused
from app.facets import PROGRAMMING_LANGUAGES, Facet

CODE = Facet.PROGRAMMING_LANGUAGE
SPOKEN = Facet.SPOKEN_LANGUAGE


def rows_of(language: str, count: int, tokens: int = 10) -> list[Candidate]:
    return [
        Candidate(f"{language}-{number:04}", tokens, programming_language=language, domain="code")
        for number in range(count)
    ]


def spec_of(*slices: Slice, budget: int, seed: int = 0) -> SetSpec:
    return SetSpec(name="test", slices=slices, token_budget=budget, seed=seed)


def balanced(*languages: str, name: str = "code", weight: float = 1) -> Slice:
    facets = {CODE: languages} if languages else {}
    return Slice(name=name, weight=weight, facets=facets, balance=CODE)


def got(composition: Composition) -> dict[str, int]:
    return {quota.value: quota.got for quota in composition.quotas}


def test_equal_parts_for_equal_supplies() -> None:
    rows = rows_of("Rust", 50) + rows_of("Go", 500)
    assert got(compose(spec_of(balanced(), budget=400), rows)) == {"Rust": 200, "Go": 200}


def test_what_one_value_cannot_fill_goes_to_the_others() -> None:
    rows = rows_of("Rust", 4) + rows_of("Go", 100) + rows_of("C", 100)
    composition = compose(spec_of(balanced(), budget=600), rows)
    assert got(composition) == {"Rust": 40, "Go": 280, "C": 280}
    [short] = composition.shortfalls
    assert (short.value, short.asked, short.got, short.available) == ("Rust", 200, 40, 40)
    assert "got 40 of the 200 tokens asked in Rust: there are 40" in composition.warnings[0]


def test_a_value_without_any_row_is_named() -> None:
    composition = compose(spec_of(balanced("Rust", "Pony"), budget=100), rows_of("Rust", 50))
    [short] = composition.shortfalls
    assert (short.value, short.asked, short.got, short.available) == ("Pony", 50, 0, 0)
    assert composition.warnings == ("Slice 'code' has no rows in Pony.",)
    assert got(composition)["Rust"] == 100


def test_a_listed_value_without_rows_is_named_without_a_balance_too() -> None:
    part = Slice(name="code", weight=1, facets={CODE: ("Rust", "Pony")})
    composition = compose(spec_of(part, budget=100), rows_of("Rust", 50))
    assert composition.warnings == ("Slice 'code' has no rows in Pony.",)


def test_every_value_is_fed_when_its_share_is_less_than_its_next_row() -> None:
    rows = [
        row
        for language in PROGRAMMING_LANGUAGES
        for row in (
            Candidate(f"{language}-long", 500, programming_language=language),
            Candidate(f"{language}-short", 90, programming_language=language),
        )
    ]
    composition = compose(spec_of(balanced(), budget=6000), rows)
    assert min(got(composition).values()) == 90
    assert composition.tokens <= 6000


def test_slices_get_tokens_by_weight() -> None:
    rows = rows_of("Rust", 100) + [
        Candidate(f"de-{number}", 10, spoken_language="de") for number in range(100)
    ]
    composition = compose(
        spec_of(
            Slice(name="code", weight=3, facets={CODE: ("Rust",)}),
            Slice(name="text", weight=1, facets={SPOKEN: ("de",)}),
            budget=400,
        ),
        rows,
    )
    assert [(part.budget, part.tokens) for part in composition.slices] == [(300, 300), (100, 100)]


def test_a_narrow_slice_is_not_emptied_by_a_wide_one_before_it() -> None:
    rows = rows_of("Rust", 10) + rows_of("Go", 90)
    wide = Slice(name="wide", weight=9, facets={})
    narrow = Slice(name="narrow", weight=1, facets={CODE: ("Rust",)})
    for slices in ((wide, narrow), (narrow, wide)):
        composition = compose(spec_of(*slices, budget=1000), rows)
        tokens = {part.name: part.tokens for part in composition.slices}
        assert tokens == {"wide": 900, "narrow": 100}


def test_slices_that_want_the_same_rows_share_them() -> None:
    composition = compose(
        spec_of(balanced(name="a"), balanced(name="b"), budget=100), rows_of("Rust", 10)
    )
    assert [part.tokens for part in composition.slices] == [50, 50]
    three = [balanced(name=name) for name in "abc"]
    composition = compose(spec_of(*three, budget=100), rows_of("Rust", 10))
    assert [part.tokens for part in composition.slices] == [30, 30, 30]  # of 34, 33 and 33
    assert len(set(composition.row_ids)) == 9


def test_a_value_whose_rows_another_slice_took_is_said_to_be() -> None:
    scarce = Slice(name="scarce", weight=1, facets={CODE: ("Rust",)})
    composition = compose(
        spec_of(scarce, balanced("Rust", "Go"), budget=200), rows_of("Rust", 10) + rows_of("Go", 20)
    )
    assert composition.warnings == (
        "Slice 'code' got 0 of the 50 tokens asked in Rust: other slices took the rest of the "
        "100 there are.",
    )
    assert composition.slices[1].tokens == 100


def test_an_empty_slice_is_refused_with_its_name_and_values() -> None:
    part = Slice(name="hebrew poems", weight=1, facets={SPOKEN: ("he",)}, balance=Facet.DOMAIN)
    with pytest.raises(CompositionRefused) as refusal:
        compose(spec_of(part, budget=10), rows_of("Rust", 10))
    assert refusal.value.sentence == (
        "Slice 'hebrew poems' matches no row of the sources: it asks for spoken language Hebrew "
        "and any domain. Widen it or take it out."
    )


def test_a_budget_larger_than_the_corpus_is_refused_with_what_there_is() -> None:
    with pytest.raises(CompositionRefused) as refusal:
        compose(spec_of(balanced(), budget=1001), rows_of("Rust", 100))
    assert "1,001 tokens is more than the 1,000 tokens (100 rows)" in refusal.value.sentence
    assert compose(spec_of(balanced(), budget=1000), rows_of("Rust", 100)).tokens == 1000


def test_a_preview_refuses_nothing() -> None:
    part = Slice(name="none", weight=1, facets={CODE: ("Pony",)})
    composition = preview(spec_of(part, budget=10**6), Pool.of(rows_of("Rust", 3)))
    assert composition.row_ids == []


def test_another_seed_is_another_sample() -> None:
    rows = rows_of("Rust", 1000)
    samples = [
        set(compose(spec_of(balanced(), budget=1000, seed=seed), rows).row_ids) for seed in (0, 1)
    ]
    assert samples[0] != {row.row_id for row in rows[:100]}
    assert 0 < len(samples[0] & samples[1]) < 30  # 10 by chance


def test_a_row_more_in_the_source_does_not_reshuffle_the_others() -> None:
    rows = rows_of("Rust", 1000)
    before = set(compose(spec_of(balanced(), budget=1000), rows).row_ids)
    after = set(compose(spec_of(balanced(), budget=1000), rows_of("Rust", 1001)).row_ids)
    assert len(before - after) <= 1


def fixed(name: str, **changes: object) -> Slice:
    return Slice.model_validate({"name": name, **changes})


def test_fixed_slices_choose_first_and_weights_share_what_they_leave() -> None:
    rows = rows_of("Rust", 100) + rows_of("Go", 100)
    composition = compose(
        spec_of(
            Slice(name="rest", weight=3),
            fixed("tokens", tokens=200, facets={CODE: ("Rust",)}),
            fixed("rows", rows=10, facets={CODE: ("Go",)}),
            Slice(name="more", weight=1),
            budget=700,
        ),
        rows,
    )
    assert [(part.budget, part.asked_rows) for part in composition.slices] == [
        (300, None),
        (200, None),
        (None, 10),
        (100, None),
    ]
    assert [part.tokens for part in composition.slices] == [300, 200, 100, 100]
    assert composition.tokens == 700


def test_rows_are_a_random_sample_in_equal_parts_of_what_they_balance() -> None:
    rows = rows_of("Rust", 500) + rows_of("Go", 50) + rows_of("C", 2)
    part = fixed("code", rows=20, balance=CODE)
    composition = compose(SetSpec(name="t", slices=(part,)), rows)
    assert got(composition) == {"Rust": 9, "Go": 9, "C": 2}
    first = {row.row_id for row in rows_of("Rust", 9)}
    assert not first <= set(composition.row_ids)
    [short] = composition.shortfalls
    assert short.sentence == "Slice 'code' got 2 of the 7 rows asked in C: there are 2."


def test_every_row_is_every_row_and_leaves_some_to_slices_that_count() -> None:
    rows = rows_of("Rust", 10)
    spec = SetSpec(name="t", slices=(fixed("all", rows="all"), fixed("some", rows=3)))
    composition = compose(spec, rows)
    assert [part.rows for part in composition.slices] == [7, 3]
    assert len(set(composition.row_ids)) == 10


def test_a_slice_that_names_rows_takes_exactly_these_before_all_others() -> None:
    rows = rows_of("Rust", 10)
    named = ("Rust-0003", "Rust-0007")
    spec = SetSpec(
        name="t",
        slices=(fixed("some", rows=8), fixed("named", rows="all", row_ids=named)),
    )
    composition = compose(spec, rows)
    taken = zip(composition.row_ids, composition.slice_names, strict=True)
    assert sorted(row_id for row_id, name in taken if name == "named") == list(named)


@pytest.mark.parametrize(
    ("slices", "budget", "sentence"),
    [
        (
            [fixed("a", tokens=60), fixed("b", tokens=60)],
            100,
            "ask for 120 tokens, more than the set's budget of 100 tokens",
        ),
        ([fixed("a", rows=11)], 100, "Slice 'a' does not fit in what is left of the set's budget"),
        (
            [fixed("a", tokens=100), Slice(name="b", weight=1)],
            100,
            "take the whole budget of 100 tokens: nothing is left for slice 'b'",
        ),
        (
            [fixed("a", tokens=900), Slice(name="b", weight=1)],
            1200,
            "What is left of the budget, 300, is more than the 100 tokens (10 rows) that match "
            "the slices with a weight",
        ),
        (
            [fixed("a", rows="all", row_ids=("Rust-0001", "gone"))],
            100,
            "names 2 rows, and 1 of them are not among the rows it may take: the first is 'gone'",
        ),
        (
            [
                fixed("a", rows="all", row_ids=("Rust-0001",)),
                fixed("b", rows="all", row_ids=("Rust-0001", "Rust-0002")),
            ],
            100,
            "Slices 'a' and 'b' both name row 'Rust-0001' (1 such rows)",
        ),
        ([fixed("a", rows=1, sources=("permissive",))], 10, "it asks for any row of permissive"),
        ([fixed("a", tokens=3)], 100, "hold no row: the shortest that matches has 10 tokens"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_one_sentence(
    slices: list[Slice], budget: int, sentence: str
) -> None:
    with pytest.raises(CompositionRefused) as refusal:
        compose(spec_of(*slices, budget=budget), rows_of("Rust", 100))
    assert sentence in refusal.value.sentence


def test_sixty_languages_of_a_hundred_thousand_rows_get_equal_parts() -> None:
    chance = random.Random(1)
    rows = [
        Candidate(
            f"{chance.getrandbits(64):016x}",
            chance.randint(20, 512),
            programming_language=chance.choice(PROGRAMMING_LANGUAGES),
        )
        for _ in range(100_000)
    ]
    pool = Pool.of(rows)
    spec = spec_of(balanced(*PROGRAMMING_LANGUAGES), budget=1_500_000)
    composition = compose(spec, pool)
    assert composition.tokens > 1_499_000
    assert max(got(composition).values()) - min(got(composition).values()) <= 512

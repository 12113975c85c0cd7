from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from app.calibration.spec import SetSpec, Slice
from app.coverage.choosing import Wish, as_set, choose_rows, even_share, quotas_of, worst_fed
from app.coverage.profile import FACET_COLUMNS, Profile, ProfileRefused
from app.facets import Facet
from tests.app.coverage.profiles import dense, small

LANGUAGES = ("Rust", "Go", "Ada")


def pool(rows: int = 120, seed: int = 0) -> Profile:
    """A pool of two slices, code in three languages (Ada is rare) and text; the last of 2 × 8
    experts are fed by Ada alone, and by few tokens of the others."""
    chance = np.random.default_rng(seed)
    tokens = chance.integers(10, 40, rows)
    language = chance.choice([0, 1, 2, 3], rows, p=[0.4, 0.3, 0.1, 0.2])
    taste = np.full((4, 2, 8), 1.0)
    taste[:, :, 6:] = 0.02
    taste[2, :, 6:] = 2.0
    taste /= taste.sum(axis=2, keepdims=True)
    counts = np.stack([chance.multinomial(2 * n, taste[which])
                       for n, which in zip(tokens, language, strict=True)])  # fmt: skip
    facets = {name: np.full(rows, "", dtype="<U20") for name in FACET_COLUMNS}
    facets["programming_language"] = np.array([*LANGUAGES, ""])[language]
    facets["slice"] = np.where(language < 3, "Code", "Text")
    return Profile(
        counts=counts.astype(np.uint16),
        mass=counts.astype(np.float32),
        layers=np.array([0, 1]),
        row_ids=np.array([f"{row:04}" for row in range(rows)]),
        tokens=tokens.astype(np.int64),
        top_k=2,
        facets=facets,
    )


def composition(weight: float = 3) -> SetSpec:
    return SetSpec(
        name="Pool",
        slices=(
            Slice(name="Code", weight=weight, balance=Facet.PROGRAMMING_LANGUAGE),
            Slice(name="Text", weight=1),
        ),
        token_budget=3000,
    )


def test_quotas_follow_the_composition() -> None:
    profile = pool()
    groups, group_of_row = quotas_of(profile, composition(), 800)
    assert [(group.slice, group.value, group.quota) for group in groups] == [
        ("Code", "Ada", 200),
        ("Code", "Go", 200),
        ("Code", "Rust", 200),
        ("Text", "", 200),
    ]
    named = [groups[group].value for group in group_of_row]
    assert named == profile.facets["programming_language"].tolist()


def test_a_value_with_few_tokens_leaves_its_part_to_the_others() -> None:
    profile = pool()
    groups, _ = quotas_of(profile, composition(), 2000)
    ada = groups[0]
    assert ada.quota == ada.available < 500
    assert sum(group.quota for group in groups) == 2000


def test_chosen_rows_keep_the_quotas_and_feed_the_worst_fed() -> None:
    profile = pool()
    chosen = choose_rows(profile, composition(), Wish(budget=800))
    spent = np.bincount(
        chosen.group_of_row[chosen.rows], profile.tokens[chosen.rows], len(chosen.groups)
    )
    assert chosen.tokens <= 800
    for group, tokens in zip(chosen.groups, spent, strict=True):
        assert group.quota - 40 < tokens < group.quota + 40
    assert worst_fed(chosen.fed, 0.1) > worst_fed(chosen.fed_at_random, 0.1)
    assert chosen.floor == even_share(profile, 800) == 200


def test_without_a_composition_the_budget_is_one_quota() -> None:
    chosen = choose_rows(pool(), None, Wish(budget=800))
    assert [(group.quota, group.slice) for group in chosen.groups] == [(800, "")]
    all_code = chosen.profile.facets["programming_language"]
    code = all_code[chosen.rows]
    assert (code == "Ada").mean() > 0.2 > (all_code == "Ada").mean()


def test_what_a_row_raised_counts_up_to_the_floor_only() -> None:
    profile = pool()
    chosen = choose_rows(profile, None, Wish(budget=800, floor=30))
    assert chosen.raised.sum() == np.minimum(chosen.fed, 30).sum()
    assert (chosen.raised <= 2 * 2 * profile.tokens[chosen.rows]).all()


def test_the_same_wish_gives_the_same_rows_and_another_seed_other_random_ones() -> None:
    first = choose_rows(pool(), composition(), Wish(budget=500, floor=5))
    again = choose_rows(pool(), composition(), Wish(budget=500, floor=5))
    other = choose_rows(pool(), composition(), Wish(budget=500, floor=5, seed=1))
    assert first.row_ids == again.row_ids
    assert first.random_rows.tolist() != other.random_rows.tolist()


def test_rows_can_be_chosen_by_activations() -> None:
    profile = dataclasses.replace(
        pool(), activations=np.random.default_rng(0).standard_normal((120, 16)).astype(np.float32)
    )
    chosen = choose_rows(profile, composition(), Wish(budget=500, aim="activations"))
    assert (chosen.gains > 0).all()
    assert chosen.row_ids != choose_rows(profile, composition(), Wish(budget=500)).row_ids


@pytest.mark.parametrize(
    ("profile", "budget", "sentence"),
    [
        (dense(), 5, "The model is dense"),
        (small(), 16, "The pool has 16 tokens and the budget is 16"),
        (small(), 3, "No row of the pool fits a budget of 3 tokens: its shortest has 4"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(
    profile: Profile, budget: int, sentence: str
) -> None:
    with pytest.raises(ProfileRefused, match=sentence):
        choose_rows(profile, None, Wish(budget=budget))


def test_a_pool_of_another_composition_is_refused() -> None:
    with pytest.raises(ProfileRefused, match="No row of the pool belongs to a slice"):
        choose_rows(small(), composition(), Wish(budget=5))


def test_the_worst_fed_part() -> None:
    counts = np.array([[5, 1, 9, 3], [7, 2, 8, 4]])
    assert worst_fed(counts, 0.01) == 1
    assert worst_fed(counts, 0.25) == 1.5
    assert worst_fed(np.zeros((0, 0), dtype=np.int64), 0.1) == 0


def test_the_choice_is_an_ordinary_composition() -> None:
    profile, spec = pool(), composition()
    chosen = choose_rows(profile, spec, Wish(budget=800))
    found = as_set(chosen, spec, "Chosen")
    assert [(part.name, part.rows) for part in found.slices] == [("Code", "all"), ("Text", "all")]
    assert sorted(row for part in found.slices for row in part.row_ids) == sorted(chosen.row_ids)
    assert found.token_budget is None
    assert (found.max_length, found.sources) == (spec.max_length, spec.sources)


def test_rows_of_a_packed_pool_are_not_chosen() -> None:
    spec = composition().model_copy(update={"packing": True})
    chosen = choose_rows(pool(), spec, Wish(budget=800))
    with pytest.raises(ProfileRefused, match="joins its rows into sequences"):
        as_set(chosen, spec, "Chosen")

"""Which settings of jobs differ."""

from __future__ import annotations

from app.comparison.settings_of import differing, settings_of


def test_a_setting_that_is_none_is_the_same_as_one_that_is_not_there() -> None:
    plain = {"seed": 1, "calibration": {"slices": [{"name": "a", "weight": 3.0}]}}
    extra = {"name": "b", "weight": 2.0, "tokens": None, "prompt": None}
    more = {"seed": 1, "calibration": {"slices": [*plain["calibration"]["slices"], extra]}}
    found, same = differing([settings_of(plain, {}), settings_of(more, {})])
    assert [(row.name, row.values) for row in found] == [("set slices b weight", [None, "2.0"])]
    assert same == 4


def test_a_size_that_is_none_differs_from_one_that_is_given() -> None:
    group, whole = ({"recipe": {"group size": size}} for size in (32, None))
    found, _ = differing([settings_of(group, {}), settings_of(whole, {})])
    assert [row.values for row in found] == [["32", "none"]]

"""Long lists, a page at a time."""

from __future__ import annotations

import pytest

from app.paging import page_of, page_within


@pytest.mark.parametrize(
    ("number", "items", "shown"),
    [(1, [1, 2, 3], 1), (2, [4, 5, 6], 2), (3, [7], 3), (9, [7], 3), (-1, [1, 2, 3], 1)],
)
def test_a_page_past_the_last_is_the_last(number: int, items: list[int], shown: int) -> None:
    assert page_of(range(1, 8), number, 3) == (items, shown, 3)


def test_an_empty_list_has_one_empty_page() -> None:
    assert page_of([], 4, 10) == ([], 1, 1)
    assert page_within(0, 4, 10) == (1, 1)


def test_a_full_page_is_not_followed_by_an_empty_one() -> None:
    assert page_within(20, 3, 10) == (2, 2)

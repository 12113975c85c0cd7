"""Long lists, a page at a time. Pages are counted from 1, and a page past the last is the last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Page(NamedTuple, Generic[T]):
    """A page of a list: what is on it, its number, and how many there are."""

    items: list[T]
    number: int
    pages: int


def page_of(items: Sequence[T], number: int, size: int) -> Page[T]:
    """The page of ``size`` items that has a number."""
    number, pages = page_within(len(items), number, size)
    return Page(list(items[(number - 1) * size : number * size]), number, pages)


def page_within(total: int, number: int, size: int) -> tuple[int, int]:
    """The number of a page of ``total`` items that is there, and how many pages there are; an
    empty list has one."""
    pages = max(1, -(-total // size))
    return min(max(number, 1), pages), pages

"""What somebody may have meant by a name that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str:
    """``; the nearest is 'messages'`` among the known names, nothing when none is near."""
    by_letters = {one.lower(): one for one in known}
    found = get_close_matches(name.lower(), by_letters, n=1, cutoff=0.6)
    return f"; the nearest is {by_letters[found[0]]!r}" if found else ""

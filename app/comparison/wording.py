"""What a comparison found, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from app.comparison.paired import FEWEST_ROWS, LEVEL, Difference, Paired
from app.facets import Facet, label_of
from app.formatting import aligned, counted, fixed, number, percent

NAMED = 8


def sentences_of(first: str, second: str, found: Paired) -> list[str]:
    """Which of two is closer to the original, and which slices changed beyond chance."""
    better = [one for one in found.slices if one.is_beyond_chance and one.difference < 0]
    worse = [one for one in found.slices if one.is_beyond_chance and one.difference > 0]
    same = len(found.slices) - len(better) - len(worse)
    said = [_overall(first, second, found)]
    if better:
        said.append(f"{second} is better beyond chance in {_named(better)}.")
    if worse:
        said.append(f"{second} is worse beyond chance in {_named(worse)}.")
    if found.slices:
        changed = "No slice changed" if not better and not worse else "The others did not change"
        rest = "" if not better and not worse else f" ({counted(same, 'slice')})"
        said.append(f"{changed} beyond chance{rest}.")
    if few := sum(one.rows < FEWEST_ROWS for one in found.slices):
        said.append(
            f"{counted(few, 'slice')} of fewer than {FEWEST_ROWS} rows could not be told from "
            "chance whatever they did: hold out more rows of them to know."
        )
    if found.unshared:
        said.append(
            f"{counted(found.unshared, 'row')} that only one of the two was measured on "
            f"{'is' if found.unshared == 1 else 'are'} left out."
        )
    if found.slices_left_out:
        said.append(
            f"{counted(found.slices_left_out, 'smaller slice')} "
            f"{'is' if found.slices_left_out == 1 else 'are'} left out: "
            f"the {len(found.slices):,} with the most tokens are compared."
        )
    return said


def method_of(found: Paired) -> str:
    """How a slice's change is told from chance."""
    return (
        "Each slice is held against random signs of its rows' differences; with "
        f"{counted(len(found.slices), 'slice')} asked at once at most {percent(LEVEL, 0)} of "
        "those named are expected to be wrong (Benjamini and Hochberg)."
    )


def slice_name(one: Difference) -> str:
    """A slice's value as a person reads it."""
    if one.facet is None or one.value is None:
        return "all rows"
    return label_of(Facet(one.facet), one.value) if one.facet in set(Facet) else one.value


def _overall(first: str, second: str, found: Paired) -> str:
    one = found.overall
    figures = (one.difference, one.low, one.high)
    low, high = aligned(one.low, figures, 3), aligned(one.high, figures, 3)
    way = "closer to the original than" if one.difference < 0 else "further from the original than"
    amount = (
        f"{aligned(abs(one.difference), figures, 3)} nats a token "
        f"(95 % of the difference {low} to {high}; p {fixed(one.p, 4)})"
    )
    rows = counted(found.shared, "shared held-out row")
    if not one.is_beyond_chance:
        return (
            f"On {rows} {second} and {first} do not differ beyond chance in mean KL: the "
            f"difference is {aligned(one.difference, figures, 3)} nats a token "
            f"(95 % {low} to {high}; p {fixed(one.p, 4)})."
        )
    return f"On {rows} {second} is {way} {first}, by {amount}: beyond chance."


def _named(slices: Sequence[Difference]) -> str:
    by_size = sorted(slices, key=lambda one: -abs(one.difference))
    names = [f"{slice_name(one)} ({_signed(one.difference)})" for one in by_size[:NAMED]]
    more = len(slices) - len(names)
    return ", ".join(names) + (f" and {more:,} more" if more else "")


def _signed(difference: float) -> str:
    sign = "+" if difference > 0 else ""
    return f"{sign}{number(difference, 2)}"

"""What a composition cannot give, in words: why it is refused, and where it falls short."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from app.calibration.pool import Pool
from app.calibration.spec import SetSpec, Slice
from app.facets import label_of
from app.formatting import counted

if TYPE_CHECKING:
    from app.calibration.composition import Composition, Quota, SliceResult, Wanted


def quota_in_words(quota: Quota) -> str:
    """What a value of a balanced facet was to get and got, and why."""
    label = label_of(quota.facet, quota.value)
    if not quota.available:
        return f"Slice {quota.slice!r} has no rows in {label}."
    if not quota.exhausted:
        why = "its shortest row is longer than what is left of the slice's share"
        if quota.unit == "rows":
            why = "the slice has fewer rows than values"
    elif quota.available >= quota.asked:
        why = f"other slices took the rest of the {quota.available:,} there are"
    else:
        why = f"there are {quota.available:,}"
    got, asked = f"{quota.got:,}", f"{quota.asked:,} {quota.unit}"
    return f"Slice {quota.slice!r} got {got} of the {asked} asked in {label}: {why}."


def refusals(spec: SetSpec, composition: Composition, cut_short: Sequence[str]) -> Iterator[str]:
    """Why a composition cannot be built, one sentence each. ``cut_short`` names the fixed slices
    that what was left of the budget could not hold."""
    sentences = list(_refusals(spec, composition, cut_short))
    if not sentences and not len(composition.rows):
        sentences.append(_no_row_fits(spec, composition.pool))
    yield from sentences


def _refusals(spec: SetSpec, composition: Composition, cut_short: Sequence[str]) -> Iterator[str]:
    for part, result in zip(spec.slices, composition.slices, strict=True):
        if not result.available_rows:
            yield (
                f"Slice {part.name!r} matches no row of the sources: it asks for "
                f"{_asks_for(part)}. Widen it or take it out.{_where_else(spec, part)}"
            )
        else:
            yield from _missing_rows(part, composition.pool)
    yield from _rows_asked_twice(spec)
    yield from _budget_refusals(spec, composition, cut_short)


def _where_else(spec: SetSpec, part: Slice) -> str:
    """Why a slice may find none of its sources' rows though they are there."""
    if not set(part.sources) < set(spec.sources) or not part.sources:
        return ""
    return " A row that several sources of the set have counts for the first of them by name."


def _no_row_fits(spec: SetSpec, pool: Pool) -> str:
    shortest = min(int(pool.tokens_in(part)[pool.matching(part)].min()) for part in spec.slices)
    return (
        "The set would hold no row: the shortest that matches has "
        f"{counted(shortest, 'token')}, more than its slices may take. Give them more."
    )


def _budget_refusals(
    spec: SetSpec, composition: Composition, cut_short: Sequence[str]
) -> Iterator[str]:
    budget = f"{spec.token_budget or 0:,} tokens"
    fixed_tokens = sum(part.tokens or 0 for part in spec.slices)
    if spec.token_budget is not None and fixed_tokens > spec.token_budget:
        yield (
            f"The slices of a fixed size ask for {fixed_tokens:,} tokens, more than the set's "
            f"budget of {budget}: raise the budget or lower them."
        )
    elif cut_short:
        yield (
            f"Slice {cut_short[0]!r} does not fit in what is left of the set's budget of "
            f"{budget}: raise the budget, or ask for fewer rows."
        )
    shared = composition.shared_budget
    if shared is None:
        return
    if shared == 0 and spec.token_budget:
        first = next(part.name for part in spec.slices if not part.is_fixed)
        yield (
            f"Slices of a fixed size take the whole budget of {budget}: nothing is left for "
            f"slice {first!r}, whose weight is a share of the rest."
        )
    available = f"{composition.shared_tokens:,} tokens ({composition.shared_rows:,} rows)"
    if composition.shared_tokens < shared:
        whole = shared == spec.token_budget
        what = f"The budget of {budget}" if whole else f"What is left of the budget, {shared:,},"
        yield (
            f"{what} is more than the {available} that match the "
            f"{'slices' if whole else 'slices with a weight'}: lower the budget or widen them."
        )


def _missing_rows(part: Slice, pool: Pool) -> Iterator[str]:
    """Row ids a slice names that the sources do not have, or that do not fit its own facets."""
    if not part.row_ids:
        return
    named = np.array(part.row_ids, dtype=np.str_)
    missing = named[~np.isin(named, pool.row_ids[pool.matching(part)])]
    if len(missing):
        yield (
            f"Slice {part.name!r} names {len(part.row_ids):,} rows, and {len(missing):,} of them "
            f"are not among the rows it may take: the first is {str(missing[0])!r}."
        )


def _rows_asked_twice(spec: SetSpec) -> Iterator[str]:
    """Rows that two slices name."""
    owner: dict[str, str] = {}
    for part in spec.slices:
        shared = [row_id for row_id in part.row_ids if row_id in owner]
        if shared:
            yield (
                f"Slices {owner[shared[0]]!r} and {part.name!r} both name row {shared[0]!r} "
                f"({len(shared):,} such rows): a row stands in a set once, leave it to one."
            )
        owner.update((row_id, part.name) for row_id in part.row_ids)


def warnings(
    wanted: Sequence[Wanted],
    pool: Pool,
    slices: Sequence[SliceResult],
    quotas: Mapping[int, Sequence[Quota]],
) -> Iterator[str]:
    """Where slices fell short of what they asked for, one sentence each."""
    for want, result in zip(wanted, slices, strict=True):
        yield from _missing_values(want, pool)
        yield from (quota.sentence for quota in quotas[want.number] if quota.short)
        yield from _slice_in_short(want, result)


def _slice_in_short(want: Wanted, result: SliceResult) -> Iterator[str]:
    name = f"Slice {result.name!r}"
    if result.available_rows and not result.rows:
        share = (
            f"its share of {result.budget:,} tokens is less than its shortest row, or "
            if result.budget is not None
            else ""
        )
        yield f"{name} got nothing: {share}other slices took all of its rows."
    elif result.budget is not None and 0 < result.available_tokens < result.budget:
        yield (
            f"{name} got {result.tokens:,} of its {result.budget:,} tokens: its rows hold "
            f"{result.available_tokens:,}."
        )
    elif result.budget is None and 0 < result.rows < (want.asked_rows or 0):
        yield (
            f"{name} got {result.rows:,} of its {want.asked_rows:,} rows: there are "
            f"{result.available_rows:,}, and other slices or the budget leave no more."
        )


def _missing_values(want: Wanted, pool: Pool) -> Iterator[str]:
    """Values a slice lists that none of its rows has; those of a balanced facet are quotas."""
    for facet, listed in want.part.facets.items():
        if facet == want.part.balance:
            continue
        present = set(pool.facets[facet].present(want.rows))
        for value in listed:
            if value not in present:
                yield f"Slice {want.part.name!r} has no rows in {label_of(facet, value)}."


def _asks_for(part: Slice) -> str:
    """What a slice's rows have to be, in words."""
    parts = [
        f"{facet.label.lower()} {' or '.join(label_of(facet, value) for value in values)}"
        for facet, values in part.facets.items()
        if values
    ]
    if part.balance is not None and not part.facets.get(part.balance):
        parts.append(f"any {part.balance.label.lower()}")
    if part.row_ids:
        parts.append(f"{counted(len(part.row_ids), 'row')} by id")
    asked = " and ".join(parts) or "any row"
    return f"{asked} of {' or '.join(part.sources)}" if part.sources else asked

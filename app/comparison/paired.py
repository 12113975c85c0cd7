"""Which slices changed beyond chance: two evaluations compared row by row.

Both models were given the same held-out rows, so a row is its own control: what differs between
rows falls out, and far smaller changes are seen than by laying two intervals side by side.

- The interval of a difference is the 95 % percentile interval of a bootstrap that draws rows, the
  same ones for both (Efron and Tibshirani 1993, chapter 13).
- Its p-value is that of a sign-flip randomization test (Fisher 1935; for language models Dror et
  al., ACL 2018): were the two equal, each row's difference could as well have the other sign. It
  is exact for any number of rows, so a slice of two rows can never look certain; a bootstrap's
  would.
- Many slices are asked at once, and some would look changed by chance alone. The p-values are
  adjusted after Benjamini and Hochberg (1995): of the slices called changed, at most 5 % are
  expected to be wrong. Holm's way bounds the chance of a single wrong one and would find nothing
  among eighty slices of a few rows. Slices share rows, which is the positive dependence that the
  bound holds under (Benjamini and Yekutieli 2001).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, computed_field

from app.quality.evaluated_rows import SMALLEST_SLICE, EvaluatedRows, RowsRefused

RESAMPLES = 2_000
FLIPS = 9_999
FLIPS_AT_ONCE = 500
LEVEL = 0.05
LARGEST_SLICES = 400
# With fewer rows not even equal signs of all of them are rarer than the level: 2 in 2 ** rows.
FEWEST_ROWS = 6
SAME_ORIGINAL = 0.02


class Difference(BaseModel):
    """The change of mean KL a token from the first evaluation to the second over some rows, in
    nats: below 0 the second is closer to the original. ``adjusted`` is the p-value after the
    control for many slices; of all rows together it is the p-value itself."""

    model_config = ConfigDict(frozen=True)

    facet: str | None
    value: str | None
    rows: int
    tokens: int
    before: float
    after: float
    difference: float
    low: float
    high: float
    p: float
    adjusted: float

    @computed_field
    @property
    def is_beyond_chance(self) -> bool:
        """Whether the change is called one."""
        return self.adjusted <= LEVEL

    @computed_field
    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``no change`` beyond chance."""
        if not self.is_beyond_chance:
            return "no change"
        return "better" if self.difference < 0 else "worse"


@dataclass(frozen=True)
class Paired:
    """Two evaluations over the rows they share: all of them together, then every slice.
    ``unshared`` rows are in one of the two alone, ``slices_left_out`` are smaller than the
    400 largest."""

    shared: int
    unshared: int
    overall: Difference
    slices: list[Difference]
    slices_left_out: int


def compare_rows(first: EvaluatedRows, second: EvaluatedRows, seed: int = 0) -> Paired:
    """Compare two evaluations on the rows they share.

    Raises RowsRefused when they share fewer than two, or were held against different originals.
    """
    before, after = shared_rows(first, second)
    found = list(before.slices())
    found.sort(key=lambda part: -int(before.tokens[part[2]].sum()))
    kept = found[:LARGEST_SLICES]
    everything = np.arange(len(before.tokens))
    groups = [everything, *(rows for _, _, rows in kept)]
    p = sign_flip_p(after.kl - before.kl, groups, seed)
    adjusted = np.concatenate((p[:1], benjamini_hochberg(p[1:])))
    names = [(None, None), *((facet, value) for facet, value, _ in kept)]
    differences = [
        _difference(before, after, rows, name, (float(p[at]), float(adjusted[at])), seed)
        for at, (name, rows) in enumerate(zip(names, groups, strict=True))
    ]
    return Paired(
        shared=len(before.tokens),
        unshared=_measured(first) + _measured(second) - 2 * len(before.tokens),
        overall=differences[0],
        slices=sorted(differences[1:], key=lambda one: (str(one.facet), str(one.value))),
        slices_left_out=len(found) - len(kept),
    )


def shared_rows(first: EvaluatedRows, second: EvaluatedRows) -> tuple[EvaluatedRows, EvaluatedRows]:
    """The measured rows that both have, with the same tokens, in the first one's order.

    Raises RowsRefused when there are fewer than two, or when the original model found them
    unequally likely, so that it cannot have been the same one.
    """
    there = {
        (row, count): at
        for at, (row, count) in enumerate(zip(second.row_ids, second.tokens, strict=True))
        if count
    }
    pairs = [
        (at, there[row, count])
        for at, (row, count) in enumerate(zip(first.row_ids, first.tokens, strict=True))
        if (row, count) in there
    ]
    if len(pairs) < SMALLEST_SLICE:
        raise RowsRefused(
            f"The two were measured on different held-out rows: they share {len(pairs)}, and a "
            "comparison needs two. Evaluate both on the same set."
        )
    ours, theirs = (np.array(side, dtype=np.intp) for side in zip(*pairs, strict=True))
    before, after = first.take(ours), second.take(theirs)
    total = float(before.loss_base.sum())
    if float(np.abs(before.loss_base - after.loss_base).sum()) > SAME_ORIGINAL * total:
        raise RowsRefused(
            "The two were held against different originals: the originals find the shared rows "
            "unequally likely. Only checkpoints of one model can be compared."
        )
    return before, after


def sign_flip_p(
    differences: NDArray[np.float64], groups: list[NDArray[np.intp]], seed: int
) -> NDArray[np.float64]:
    """Two-sided p-values of the sums of some rows' differences, one a group of row indices: how
    often random signs give a sum as far from 0. The same signs serve every group."""
    rows = len(differences)
    parts = np.zeros((rows, len(groups)))
    for at, indices in enumerate(groups):
        parts[indices, at] = differences[indices]
    seen = np.abs(parts.sum(axis=0)) * (1 - 1e-12)
    random = np.random.default_rng(seed)
    as_far = np.zeros(len(groups))
    for start in range(0, FLIPS, FLIPS_AT_ONCE):
        signs = random.integers(2, size=(min(FLIPS_AT_ONCE, FLIPS - start), rows)) * 2.0 - 1.0
        as_far += (np.abs(signs @ parts) >= seen).sum(axis=0)
    return (1 + as_far) / (1 + FLIPS)


def benjamini_hochberg(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """P-values adjusted to bound the false discovery rate: the smallest of p · n / rank over all
    ranks from its own up."""
    order = np.argsort(p)[::-1]
    ranks = np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.minimum.accumulate(p[order] * len(p) / ranks), 1.0)
    return adjusted


def _difference(
    before: EvaluatedRows,
    after: EvaluatedRows,
    rows: NDArray[np.intp],
    name: tuple[str | None, str | None],
    p: tuple[float, float],
    seed: int,
) -> Difference:
    tokens = before.tokens[rows]
    changed = after.kl[rows] - before.kl[rows]
    draws = np.random.default_rng(seed).integers(len(rows), size=(RESAMPLES, len(rows)))
    means = changed[draws].sum(axis=1) / tokens[draws].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    total = int(tokens.sum())
    return Difference(
        facet=name[0],
        value=name[1],
        rows=len(rows),
        tokens=total,
        before=float(before.kl[rows].sum() / total),
        after=float(after.kl[rows].sum() / total),
        difference=float(changed.sum() / total),
        low=float(low),
        high=float(high),
        p=p[0],
        adjusted=p[1],
    )


def _measured(rows: EvaluatedRows) -> int:
    return int((rows.tokens > 0).sum())

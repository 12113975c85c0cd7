"""The rows a checkpoint is judged on: the same composition, from rows never calibrated on."""

from __future__ import annotations

from app.calibration.composition import preview
from app.calibration.index import CorpusIndex
from app.calibration.spec import SetSpec

HELD_OUT_BUDGET = 45_000
# Shorter rows, so that few tokens reach every language and give each slice rows enough for an
# interval: at 512 a language's share of them is less than one row.
HELD_OUT_LENGTH = 256


def held_out_for(spec: SetSpec, index: CorpusIndex) -> SetSpec | None:
    """The held-out sibling of a composition, as large as the held-out part allows.

    Slices that the held-out part has no rows for are left out, the budget is at most 45,000
    tokens (an evaluation reads every row through two models), and rows are cut at 256 tokens so
    that it reaches more languages. None when nothing is left.
    """
    asked = spec.model_copy(
        update={
            "name": f"{spec.name}, held out",
            "split": "held_out",
            "max_length": min(spec.max_length, HELD_OUT_LENGTH),
        }
    )
    composition = preview(asked, index.pool(asked))
    slices = tuple(
        part
        for part, result in zip(asked.slices, composition.slices, strict=True)
        if result.available_rows
    )
    if not slices:
        return None
    kept = asked.model_copy(update={"slices": slices})
    most = _matching_tokens(kept, index)
    return kept.model_copy(update={"token_budget": min(HELD_OUT_BUDGET, spec.token_budget, most)})


def _matching_tokens(spec: SetSpec, index: CorpusIndex) -> int:
    pool = index.pool(spec)
    matching = pool.matching(spec.slices[0])
    for part in spec.slices[1:]:
        matching |= pool.matching(part)
    return int(pool.tokens[matching].sum())

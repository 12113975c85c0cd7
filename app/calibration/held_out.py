"""The rows a checkpoint is judged on: the same composition, from rows never calibrated on."""

from __future__ import annotations

from typing import Any

from app.calibration.composition import preview
from app.calibration.index import CorpusIndex
from app.calibration.spec import SetSpec, Slice

HELD_OUT_BUDGET = 45_000
# Shorter rows, so that few tokens reach every language and give each slice rows enough for an
# interval: at 512 a language's share of them is less than one row.
HELD_OUT_LENGTH = 256

# What a held-out sibling has of its own.
OWN_FIELDS = frozenset(
    {"name", "split", "max_length", "packing", "duplicates", "slices", "token_budget"}
)


def held_out_for(spec: SetSpec, index: CorpusIndex) -> SetSpec | None:
    """The held-out sibling of a composition, as large as the held-out part allows.

    Slices that the held-out part has no rows for are left out, those of a fixed size get the
    share of it they have of the set, the budget is at most 45,000 tokens (an evaluation reads
    every row through two models), and rows are cut at 256 tokens so that it reaches more
    languages. Nothing is packed, each row is judged by itself, and no row says what a calibration
    row says. None when nothing is left.
    """
    asked = spec.model_copy(
        update={
            "name": held_out_name(spec.name),
            "split": "held_out",
            "max_length": min(spec.max_length, HELD_OUT_LENGTH),
            "packing": False,
            "duplicates": "drop",
            "slices": _by_weight(spec, index),
            "token_budget": spec.token_budget or HELD_OUT_BUDGET,
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
    most = min(HELD_OUT_BUDGET, asked.token_budget or 0, _matching_tokens(kept, index))
    judged = kept.model_copy(update={"token_budget": most})
    return judged if len(preview(judged, index.pool(judged)).rows) else None


def held_out_name(name: str) -> str:
    """The name of the held-out sibling of a set."""
    return f"{name}, held out"


def is_held_out_of(built: dict[str, Any], spec: dict[str, Any]) -> bool:
    """Whether a composition can be the held-out sibling of another, both as JSON: it has its name,
    and all but its own fields from it."""
    shared = spec.keys() - OWN_FIELDS
    return (
        built.get("split") == "held_out"
        and built.get("name") == held_out_name(spec["name"])
        and all(built.get(field) == spec[field] for field in shared)
    )


def _by_weight(spec: SetSpec, index: CorpusIndex) -> tuple[Slice, ...]:
    """The slices with weights alone, and without the rows they name: those are calibrated on."""
    if not any(part.is_fixed or part.row_ids for part in spec.slices):
        return spec.slices
    composition = preview(spec, index.pool(spec))
    return tuple(
        part.model_copy(
            update={
                "weight": float(min(max(result.tokens, 1), 10**6)),
                "tokens": None,
                "rows": None,
                "row_ids": (),
            }
        )
        for part, result in zip(spec.slices, composition.slices, strict=True)
    )


def _matching_tokens(spec: SetSpec, index: CorpusIndex) -> int:
    pool = index.pool(spec)
    matching = pool.matching(spec.slices[0])
    for part in spec.slices[1:]:
        matching |= pool.matching(part)
    return int(pool.tokens[matching].sum())

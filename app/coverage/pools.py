"""A pool: the same composition as a set, of many times its tokens, to choose rows from."""

from __future__ import annotations

from app.calibration.composition import preview
from app.calibration.index import CorpusIndex
from app.calibration.spec import SetSpec, Slice
from app.errors import CompositionRefused

TIMES = 20
# Below this there is hardly anything to choose.
FEWEST_TIMES = 1.5
MOST_ROWS = 10**8
MOST_TOKENS = 10**10


def pool_of(spec: SetSpec, index: CorpusIndex, times: int = TIMES) -> SetSpec:
    """The composition of a pool: ``times`` the tokens of a set, or as many as its sources have.

    Slices keep their facets, shares and balance, and lose the rows they name. Raises
    CompositionRefused when the sources have hardly more than the set.
    """
    slices = tuple(_larger(part, times) for part in spec.slices)
    budget = None if spec.token_budget is None else min(spec.token_budget * times, MOST_TOKENS)
    wanted = spec.model_copy(
        update={
            "name": _name(spec.name),
            "slices": slices,
            "token_budget": budget,
            "packing": False,
        }
    )
    found = preview(wanted, index.pool(wanted))
    of_set = preview(spec, index.pool(spec)).tokens
    if found.tokens < FEWEST_TIMES * of_set:
        raise CompositionRefused(
            f"The sources have {found.tokens:,} tokens that fit the slices of {spec.name!r}, and "
            f"the set takes {of_set:,} of them: there is hardly anything to choose. Add sources, "
            "or lower the set's budget."
        )
    if budget is None or found.shared_budget is None:
        return wanted
    most = budget - found.shared_budget + found.shared_tokens
    return wanted.model_copy(update={"token_budget": min(budget, most)})


def _larger(part: Slice, times: int) -> Slice:
    update: dict[str, object] = {"row_ids": ()}
    if part.tokens is not None:
        update["tokens"] = min(part.tokens * times, MOST_TOKENS)
    if isinstance(part.rows, int):
        update["rows"] = min(part.rows * times, MOST_ROWS)
    return part.model_copy(update=update)


def _name(name: str) -> str:
    return f"Pool of {name}"[:120]

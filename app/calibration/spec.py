"""A composition as plain data: what a calibration set should be made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.facets import Facet
from app.sources.starter_corpus import PACKS, Pack, Split


class Slice(BaseModel):
    """A part of the set: rows whose facets match, and the share of the budget they get.

    ``facets`` keeps rows whose value is among those listed, for every facet that lists any.
    ``balance`` shares the slice's tokens equally over the values of one facet, as far as the
    source has them; what one value cannot fill goes to the others.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=80)]
    weight: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
    facets: dict[Facet, tuple[str, ...]] = {}
    balance: Facet | None = None


class SetSpec(BaseModel):
    """A composition over the starter corpus.

    ``token_budget`` is never passed. ``max_length`` is the length in tokens past which a row is
    cut at its tail.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=120)]
    slices: tuple[Slice, ...] = Field(min_length=1, max_length=200)
    token_budget: Annotated[int, Field(ge=1, le=10**10)]
    max_length: Annotated[int, Field(ge=16, le=1_048_576)] = 512
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    packs: tuple[Pack, ...] = Field(default=PACKS, min_length=1)
    split: Split = "calibration"

    @model_validator(mode="after")
    def _slices_have_their_own_names(self) -> SetSpec:
        names = [part.name for part in self.slices]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"two slices are called {repeated[0]!r}: give each its own name")
        return self

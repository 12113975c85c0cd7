"""A quantization recipe as plain data, and the presets the command line knows by slug.

Targets name modules as transformers 5 does after linearization
(``model.layers.N.mlp.experts.M.gate_proj``), each a regular expression without the ``re:`` prefix
of compressed-tensors.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

EXPERTS = r".*\.experts\.\d+\.(gate_proj|up_proj|down_proj|w1|w2|w3)$"
ATTENTION = r".*\.self_attn\..*_proj$"
LINEARS = r".*_proj$"


Statistics = Literal["all", "routed"]
Search = Literal["exact", "fast", "stock"]


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern} is not a regular expression: {error}") from error
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]


class Group(BaseModel):
    """One scheme and the modules it is applied to: ``bits`` a weight, an integer or (8 bits only)
    a float8 e4m3, one scale for every ``group_size`` input columns (None: one for every output
    row)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    targets: tuple[Pattern, ...] = Field(min_length=1)
    bits: Annotated[int, Field(ge=4, le=8)] = 4
    type: Literal["int", "float"] = "int"
    group_size: Annotated[int, Field(ge=16, le=1024)] | None = 32
    symmetric: bool = True

    @model_validator(mode="after")
    def _float_is_float8(self) -> Self:
        if self.type == "float" and (self.bits != 8 or not self.symmetric):
            raise ValueError("float weights are 8 bits wide and symmetric (float8 e4m3)")
        return self


class Recipe(BaseModel):
    """What is done to a model.

    ``smooth`` searches AWQ scales; without it weights are rounded to nearest as they are.
    ``grid`` is the number of scale ratios tried for each mapping.

    ``statistics`` says which tokens an expert's scales are found from: ``all`` of the set, as
    stock llmcompressor does, or the ones ``routed`` to it. With ``floor``, an expert that got
    fewer routed tokens is topped up to that many with the tokens whose router score for it is
    highest among those not routed to it; 0 leaves an expert no token reached to round-to-nearest.

    ``search`` is ``exact`` (the weights stock llmcompressor finds, in less time), ``fast`` (tries
    the scales on a sample of the tokens: other weights, compared in docs/quality.md) or ``stock``
    (llmcompressor's own search, over the same mappings: the reference).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str = ""
    groups: tuple[Group, ...] = Field(min_length=1)
    ignore: tuple[Pattern, ...] = (r"^lm_head$",)
    grid: Annotated[int, Field(ge=1, le=100)] = 20
    duo_scaling: bool = True
    smooth: bool = True
    statistics: Statistics = "all"
    floor: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    search: Search = "exact"

    @model_validator(mode="after")
    def _floor_is_of_routed(self) -> Self:
        if self.floor and self.statistics != "routed":
            raise ValueError("a floor tops up routed statistics: set statistics to routed")
        if self.floor and self.search == "stock":
            raise ValueError("llmcompressor's own search has no floor: set search to exact")
        return self


PRESETS: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="experts-w4a16-g32",
            description="Routed experts in 4 bits, one scale for 32 weights; the rest untouched.",
            groups=(Group(name="experts", targets=(EXPERTS,)),),
        ),
        Recipe(
            name="linears-w4a16-g128",
            description="All projections in 4 bits, one scale for 128 weights.",
            groups=(Group(name="linears", targets=(LINEARS,), group_size=128),),
        ),
        Recipe(
            name="linears-w4a16-g128-asym",
            description="All projections in 4 bits with zero points, one scale for 128 weights.",
            groups=(Group(name="linears", targets=(LINEARS,), group_size=128, symmetric=False),),
        ),
        Recipe(
            name="experts-w4a16-g32-attn8",
            description="Routed experts in 4 bits, attention in 8 bits.",
            groups=(
                Group(name="experts", targets=(EXPERTS,)),
                Group(name="attention", targets=(ATTENTION,), bits=8, group_size=32),
            ),
        ),
    )
}

DEFAULT_PRESET = "experts-w4a16-g32"

"""A quantization recipe as plain data, and the presets the command line knows by slug.

Targets name modules as transformers 5 does after linearization
(``model.layers.N.mlp.experts.M.gate_proj``), each a regular expression without the ``re:`` prefix
of compressed-tensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.errors import RecipeRefused

EXPERTS = r".*\.experts\.\d+\.(gate_proj|up_proj|down_proj|w1|w2|w3)$"
ATTENTION = r".*\.self_attn\..*_proj$"
LINEARS = r".*_proj$"


class Group(BaseModel):
    """One scheme and the modules it is applied to: ``bits`` an integer weight, one scale for
    every ``group_size`` input columns (None: one for every output row)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    targets: tuple[str, ...] = Field(min_length=1)
    bits: Annotated[int, Field(ge=4, le=8)] = 4
    group_size: Annotated[int, Field(ge=16, le=1024)] | None = 32
    symmetric: bool = True


class Recipe(BaseModel):
    """What AWQ does to a model. ``grid`` is the number of scale ratios tried for each mapping."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str = ""
    groups: tuple[Group, ...] = Field(min_length=1)
    ignore: tuple[str, ...] = (r"^lm_head$",)
    grid: Annotated[int, Field(ge=1, le=100)] = 20
    duo_scaling: bool = True

    @property
    def smallest_group_size(self) -> int | None:
        """The finest group size in input columns, None when every group is one row."""
        return min((g.group_size for g in self.groups if g.group_size), default=None)


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


def load_recipe(slug_or_file: str) -> Recipe:
    """A preset by its slug, or a recipe from a YAML file.

    Raises RecipeRefused when neither exists or the file is not a recipe.
    """
    if slug_or_file in PRESETS:
        return PRESETS[slug_or_file]
    path = Path(slug_or_file)
    if not path.is_file():
        raise RecipeRefused(
            f"There is no recipe {slug_or_file!r}: give a file, or one of {', '.join(PRESETS)}."
        )
    try:
        return Recipe.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise RecipeRefused(f"{path} is not YAML: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise RecipeRefused(f"{path}: {where}: {first['msg']}.") from error

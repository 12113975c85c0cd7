"""A composition as plain data: what a calibration set should be made of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from app.facet_names import known_value
from app.facets import Facet
from app.formatting import counted
from app.prompts.sandbox import PromptRefused
from app.prompts.template import PromptTemplate
from app.rendering.conversation import Reasoning
from app.rendering.truncation import Truncation
from app.sources.entry import SourceName
from app.sources.starter_corpus import PACKS, Split

Duplicates = Literal["keep", "drop"]


def no_truth(value: Any) -> Any:
    """The value of a number's field. YAML's ``yes`` is true, which Python takes for 1: raises
    ValueError."""
    if isinstance(value, bool):
        raise ValueError(f"{value} is true or false: give a number")
    return value


class Prompt(BaseModel):
    """Words put before a row: Jinja text, run in a sandbox.

    With ``facet`` each row is assigned one of ``values`` by a stratified seeded rotation, which
    ``template`` may name. Such a value is *named* by the prompt and not *fed*: the row's tokens
    are counted apart.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    template: Annotated[str, Field(min_length=1, max_length=20_000)]
    facet: Facet | None = None
    values: tuple[str, ...] = Field(default=(), max_length=1000)

    @field_validator("template")
    @classmethod
    def _template_is_valid(cls, template: str) -> str:
        try:
            PromptTemplate(template)
        except PromptRefused as refused:
            raise ValueError(refused.sentence.rstrip(".")) from refused
        return template

    @model_validator(mode="after")
    def _values_have_a_facet(self) -> Prompt:
        if self.values and self.facet is None:
            raise ValueError("a prompt with values says which facet they are of")
        if self.facet is not None and not self.values:
            raise ValueError("a prompt with a facet lists the values it assigns")
        return self


class Slice(BaseModel):
    """A part of the set: which rows it may take, and how much of them.

    Rows are those of ``sources`` (all of the set's when it lists none), among ``row_ids`` where
    it lists any, whose value is among those ``facets`` lists, for every facet that lists any.

    How much is one of three: ``tokens`` or ``rows`` (``all``: every row there is) fix it,
    ``weight`` is a share of what fixed slices leave of the set's budget. ``balance`` shares a
    slice's tokens (its rows, where ``rows`` fixes them) equally over the values of one facet, as
    far as the sources have them; what one value cannot fill goes to the others.

    ``extra`` keeps what an imported file says of the slice and Calibrant has no field for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=80)]
    weight: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    tokens: Annotated[int, Field(ge=1, le=10**10)] | None = None
    rows: Annotated[int, Field(ge=1, le=10**8)] | Literal["all"] | None = None
    facets: dict[Facet, tuple[str, ...]] = {}
    balance: Facet | None = None
    sources: tuple[SourceName, ...] = Field(default=(), max_length=1000)
    row_ids: tuple[str, ...] = ()
    prompt: Prompt | None = None
    extra: dict[str, Any] = {}

    @property
    def is_fixed(self) -> bool:
        """Whether its size is given in tokens or rows, and is no share of what is left."""
        return self.weight is None

    @property
    def size(self) -> str:
        """How much of the set it is to be, in words."""
        if self.weight is not None:
            return f"weight {self.weight:,.10g}"
        if self.tokens is not None:
            return counted(self.tokens, "token")
        return "all rows" if self.rows == "all" else counted(self.rows or 0, "row")

    @field_validator("weight", "tokens", "rows", mode="before")
    @classmethod
    def _amounts_are_numbers(cls, value: Any) -> Any:
        return no_truth(value)

    @field_validator("facets")
    @classmethod
    def _values_by_their_names(
        cls, facets: dict[Facet, tuple[str, ...]]
    ) -> dict[Facet, tuple[str, ...]]:
        return {
            facet: tuple(dict.fromkeys(known_value(facet, value) for value in values))
            for facet, values in facets.items()
        }

    @model_validator(mode="after")
    def _has_one_budget(self) -> Slice:
        given = [name for name in ("weight", "tokens", "rows") if getattr(self, name) is not None]
        if len(given) != 1:
            said = " and ".join(given) or "none of them"
            raise ValueError(
                f"slice {self.name!r} gives {said}: give one of weight, tokens or rows"
            )
        return self


class SetSpec(BaseModel):
    """A composition over some sources.

    ``token_budget`` is never passed; None, where every slice is fixed, leaves it to them.
    ``max_length`` is the length in tokens past which a row is cut, at its tail, its head or in
    its middle (``truncation``); rows shorter than ``min_tokens`` are left out. ``duplicates``
    says whether rows that say the same or nearly the same all stay or only the first.
    ``packing`` joins rows into sequences of ``max_length`` tokens. ``reasoning`` says how
    reasoning content reaches the model: as the template wants it (``native``), inside the
    assistant's words (``inline``), or not at all (``stripped``).

    ``notes`` and ``extra`` keep what an imported file says that Calibrant has no field for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=120)]
    slices: tuple[Slice, ...] = Field(min_length=1, max_length=200)
    token_budget: Annotated[int, Field(ge=1, le=10**10)] | None = None
    max_length: Annotated[int, Field(ge=16, le=1_048_576)] = 512
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    sources: tuple[SourceName, ...] = Field(default=PACKS, min_length=1, max_length=1000)
    split: Split = "calibration"
    truncation: Truncation = "tail"
    min_tokens: Annotated[int, Field(ge=0, le=1_048_576)] = 0
    duplicates: Duplicates = "keep"
    packing: bool = False
    reasoning: Reasoning = "native"
    notes: tuple[str, ...] = ()
    extra: dict[str, Any] = {}

    @field_validator("token_budget", "max_length", "seed", "min_tokens", mode="before")
    @classmethod
    def _amounts_are_numbers(cls, value: Any) -> Any:
        return no_truth(value)

    @model_validator(mode="after")
    def _parts_fit_together(self) -> SetSpec:
        for what, names in (
            ("slices are called", [part.name for part in self.slices]),
            ("sources are called", list(self.sources)),
        ):
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise ValueError(f"two {what} {repeated[0]!r}: give each its own name")
        for part in self.slices:
            for unknown in sorted(set(part.sources).difference(self.sources)):
                raise ValueError(
                    f"slice {part.name!r} takes rows of {unknown!r}, which is not among the "
                    f"set's sources: {', '.join(self.sources)}"
                )
            if self.token_budget is None and not part.is_fixed:
                raise ValueError(
                    f"slice {part.name!r} is a share of the budget, and there is no token_budget"
                )
        return self

"""Finding sources: by words, kind, state and the values of facets."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, field_validator

from app.facets import Facet, label_of, vocabulary
from app.sources.catalogue import Source, SourceState
from app.sources.entry import Kind


class SourceQuery(BaseModel):
    """What somebody looks for; an empty field asks for nothing. ``q`` is words that the name, the
    title, the place or a licence have, every one of them; ``set`` the id of a saved set that names
    it."""

    q: Annotated[str, Field(max_length=200)] = ""
    kind: Kind | None = None
    state: SourceState | None = None
    spoken_language: Annotated[str, Field(max_length=80)] = ""
    programming_language: Annotated[str, Field(max_length=80)] = ""
    domain: Annotated[str, Field(max_length=80)] = ""
    set: Annotated[str, Field(max_length=32)] = ""
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1

    @field_validator("kind", "state", mode="before")
    @classmethod
    def _any_is_empty(cls, value: object) -> object:
        return None if value == "" else value  # how a form sends that nothing is chosen

    def value_of(self, facet: Facet) -> str:
        """The value of a facet that is looked for, empty for any."""
        value: str = getattr(self, facet.value)
        return value

    @property
    def asks(self) -> bool:
        """Whether it leaves any source out."""
        return self.model_copy(update={"page": 1}) != SourceQuery()


def matching(sources: list[Source], query: SourceQuery) -> list[Source]:
    """The sources that a query asks for, in their order."""
    return [source for source in sources if _matches(source, query)]


def values_to_choose(sources: list[Source], facet: Facet) -> dict[str, str]:
    """The values of a facet that any source has, with their labels, in the vocabulary's order."""
    present = {value for source in sources for value in source.values_of(facet)}
    known = [value for value in vocabulary(facet) if value in present]
    others = sorted(present.difference(known))
    return {value: label_of(facet, value) for value in (*known, *others)}


def _matches(source: Source, query: SourceQuery) -> bool:
    if query.kind is not None and source.kind != query.kind:
        return False
    if query.state is not None and source.state != query.state:
        return False
    for facet in Facet:
        wanted = query.value_of(facet)
        if wanted and wanted not in source.values_of(facet):
            return False
    text = " ".join([source.name, source.title, source.place, source.license or "",
                     *source.licenses]).lower()  # fmt: skip
    return all(word in text for word in query.q.lower().split())

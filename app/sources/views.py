"""What the page about sources shows."""

from __future__ import annotations

from pydantic import BaseModel

from app.settings import Settings
from app.sources.catalogue import Source, list_sources


class SourceRow(BaseModel):
    """One source. ``in_use`` when the installation's settings use its pack."""

    source: Source
    in_use: bool


class SourceListView(BaseModel):
    """Every source there is to compose from."""

    sources: list[SourceRow]
    rows: int


def source_list(settings: Settings) -> SourceListView:
    """The catalogue."""
    sources = list_sources()
    return SourceListView(
        sources=[SourceRow(source=s, in_use=s.name in settings.corpus_packs) for s in sources],
        rows=sum(source.rows for source in sources),
    )

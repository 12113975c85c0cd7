"""Real rows of a source, as a person reads them."""

from __future__ import annotations

import json
from itertools import chain, islice
from typing import Any

from pydantic import BaseModel

from app.facets import Facet
from app.sources.rows import RowsFile, iterate_rows, messages_of

PAGE_ROWS = 5
# A row can have a million characters; a page shows the beginning and says how much there is.
SHOWN_CHARACTERS = 2_000


class PreviewMessage(BaseModel):
    """One message: ``content`` is its beginning, ``characters`` its whole length. ``calls`` are
    the tool calls as ``name(arguments)``, ``reasoning`` the thought before the words."""

    role: str
    content: str
    characters: int
    reasoning: str = ""
    calls: list[str] = []


class PreviewRow(BaseModel):
    """One row. ``own`` are the facets it named itself; the others are the source's tags."""

    id: str
    number: int
    split: str
    license: str | None
    facets: dict[Facet, str]
    own: list[Facet]
    messages: list[PreviewMessage]


def preview(file: RowsFile, page: int = 1, rows: int = PAGE_ROWS) -> list[PreviewRow]:
    """A page of a source's rows, in the order of the source."""
    start = (page - 1) * rows
    every = chain.from_iterable(iterate_rows(file, batch_rows=min(256, start + rows)))
    return [
        _row(number, row)
        for number, row in enumerate(islice(every, start, start + rows), start=start + 1)
    ]


def _row(position: int, row: dict[str, Any]) -> PreviewRow:
    own = [Facet(name) for name in (row.get("own_facets") or "").split(",") if name]
    return PreviewRow(
        id=row["id"],
        number=row.get("number") or position,
        split=row["split"],
        license=row["license"],
        facets={facet: row[facet.value] for facet in Facet if row[facet.value]},
        own=own if "own_facets" in row else [facet for facet in Facet if row[facet.value]],
        messages=[_message(message) for message in messages_of(row)],
    )


def _message(message: dict[str, Any]) -> PreviewMessage:
    return PreviewMessage(
        role=message["role"],
        content=message["content"][:SHOWN_CHARACTERS],
        characters=len(message["content"]),
        reasoning=message.get("reasoning_content", "")[:SHOWN_CHARACTERS],
        calls=[
            _call(call["function"])[:SHOWN_CHARACTERS] for call in message.get("tool_calls", ())
        ],
    )


def _call(function: dict[str, Any]) -> str:
    return f"{function['name']}({json.dumps(function['arguments'], ensure_ascii=False)})"

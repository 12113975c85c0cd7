"""Rows as the model will see them: what the preview of a set shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path

from pydantic import BaseModel

from app.calibration.composition import preview
from app.calibration.index import CorpusIndex
from app.calibration.prompting import assign
from app.calibration.spec import SetSpec
from app.facets import Facet
from app.paging import page_of
from app.rendering.chat_template import RowRefused, load_chat_template
from app.rendering.conversation import Turn
from app.rendering.renderer import Rendered, Renderer
from app.rendering.tokenizer import load_tokenizer
from app.sources.rows import RowsFile, find_rows, messages_of

# A row of a megabyte is shown up to here, and around the place where it is cut.
SHOWN_CHARACTERS = 12_000
AROUND_CUT = 1_000


class Segment(BaseModel):
    """Neighbouring characters of a rendered row, and whether they are lost at the maximum length.
    ``skipped`` characters before them are not shown."""

    text: str
    is_cut: bool
    skipped: int = 0


class Block(BaseModel):
    """The words of one turn, or (no role) marks of the template's own."""

    role: str | None
    segments: list[Segment]


class RenderedRow(BaseModel):
    """One row of a set: its tokens after the cut and before it, those of its assistant's words,
    what its prompt names, and its text by turn. ``refused`` says why it cannot be rendered."""

    row_id: str
    number: int
    slice: str
    source: str
    license: str | None
    facets: dict[Facet, str]
    named: str | None = None
    tokens: int = 0
    full_tokens: int = 0
    fed_tokens: int = 0
    blocks: list[Block] = []
    refused: str | None = None


class RowsPage(BaseModel):
    """Some of a set's rows, rendered; ``page`` and ``pages`` count from 1."""

    rows: list[RenderedRow]
    total: int
    page: int
    pages: int


def rendered_page(
    spec: SetSpec,
    index: CorpusIndex,
    files: Sequence[RowsFile],
    tokenizer_dir: Path,
    page: int,
    page_rows: int,
) -> RowsPage:
    """A page of the rows of a composition in the set's order, which is random, so that any page is
    a sample of it. Raises ModelRefused."""
    composition = preview(spec, index.pool(spec))
    row_ids, names = composition.row_ids, composition.slice_names
    shown, page, pages = page_of(row_ids, page, page_rows)
    prompts = assign(spec, row_ids, composition.slice_of_row.tolist())
    found = find_rows(files, shown)
    rows = [
        RenderedRow(
            row_id=row_id,
            number=number,
            slice=names[number - 1],
            source=found[row_id]["source"],
            license=found[row_id]["license"],
            facets={facet: found[row_id][facet.value] for facet in Facet if found[row_id][facet]},
            named=prompts[row_id].label if row_id in prompts else None,
        )
        for number, row_id in enumerate(shown, start=(page - 1) * page_rows + 1)
    ]
    renderer = _renderer(spec, index, tokenizer_dir)
    for row in rows:
        source = found[row.row_id]
        talk = list(messages_of(source))
        try:
            if row.row_id in prompts:
                talk = [dict(one) for one in prompts[row.row_id].before(source, talk)]
        except RowRefused as refusal:
            row.refused = refusal.sentence
            continue
        _fill(row, *renderer.render([talk]))
    return RowsPage(rows=rows, total=len(row_ids), page=page, pages=pages)


def _renderer(spec: SetSpec, index: CorpusIndex, tokenizer_dir: Path) -> Renderer:
    tokenizer = index.tokenizer or load_tokenizer(tokenizer_dir)
    template = load_chat_template(tokenizer_dir)
    return Renderer(template, tokenizer, spec.max_length, spec.truncation, spec.reasoning)


def _fill(row: RenderedRow, result: Rendered | RowRefused) -> None:
    if isinstance(result, RowRefused):
        row.refused = result.sentence
        return
    row.tokens, row.full_tokens = len(result.input_ids), result.full_tokens
    row.fed_tokens = result.fed_tokens
    row.blocks = blocks_of(result)


def blocks_of(result: Rendered, shown: int = SHOWN_CHARACTERS) -> list[Block]:
    """The text of a rendered row by turn, each in segments that are kept or cut. Past ``shown``
    characters only what stands around the cut is given."""
    return [
        Block(role=turn.role if turn else None, segments=[segment for _, segment in pieces])
        for turn, pieces in groupby(_pieces(result, shown), lambda piece: piece[0])
    ]


def _pieces(result: Rendered, shown: int) -> Iterator[tuple[Turn | None, Segment]]:
    start, end = result.cut or (len(result.text), len(result.text))
    edges = {0, len(result.text), start, end}
    edges.update(edge for turn in result.turns for edge in (turn.start, turn.end))
    windows = _windows(len(result.text), result.cut, shown)
    edges.update(edge for window in windows for edge in window)
    skipped = 0
    for first, last in pairwise(sorted(edges)):
        if not any(opens <= first and last <= closes for opens, closes in windows):
            skipped += last - first
            continue
        turns = (turn for turn in result.turns if turn.start <= first and last <= turn.end)
        is_cut = start <= first and last <= end
        segment = Segment(text=result.text[first:last], is_cut=is_cut, skipped=skipped)
        yield next(turns, None), segment
        skipped = 0
    if skipped:
        yield None, Segment(text="", is_cut=False, skipped=skipped)


def _windows(length: int, cut: tuple[int, int] | None, shown: int) -> list[tuple[int, int]]:
    """Which characters are shown: the first, and those around both ends of the cut."""
    if length <= shown:
        return [(0, length)]
    windows = [(0, shown)]
    for place in cut or ():
        windows.append((max(0, place - AROUND_CUT), min(length, place + AROUND_CUT)))
    merged = [windows[0]]
    for opens, closes in sorted(windows)[1:]:
        if opens <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(closes, merged[-1][1])
        else:
            merged.append((opens, closes))
    return merged

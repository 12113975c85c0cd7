from __future__ import annotations

from pathlib import Path

from app.calibration.index import open_index
from app.calibration.rendered_rows import Block, blocks_of, rendered_page
from app.calibration.spec import SetSpec
from app.rendering.chat_template import ChatTemplate
from app.rendering.renderer import Rendered, Renderer
from app.rendering.tokenizer import load_tokenizer
from app.sources.rows import rows_files

PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content }};{% endfor %}"


def rendered(model_dir: Path, words: str, length: int) -> Rendered:
    talk = [{"role": "user", "content": "Go on."}, {"role": "assistant", "content": words}]
    renderer = Renderer(ChatTemplate(PLAIN, {}), load_tokenizer(model_dir), length, "middle")
    [row] = renderer.render([talk])
    assert isinstance(row, Rendered)
    return row


def text_of(blocks: list[Block], cut: bool | None = None) -> str:
    parts = [part for block in blocks for part in block.segments]
    return "".join(part.text for part in parts if cut is None or part.is_cut is cut)


def test_blocks_are_the_whole_text_by_turn_and_by_cut(model_dir: Path) -> None:
    row = rendered(model_dir, "one two three four five six seven eight nine ten", 20)
    blocks = blocks_of(row)
    assert text_of(blocks) == row.text
    assert [block.role for block in blocks] == [None, "user", None, "assistant", None]
    assert row.cut is not None
    start, end = row.cut
    assert text_of(blocks, cut=True) == row.text[start:end]
    assert text_of(blocks, cut=False) == row.text[:start] + row.text[end:]


def test_a_very_long_row_is_shown_at_its_beginning_and_around_its_cut(model_dir: Path) -> None:
    row = rendered(model_dir, "word " * 9000, 4000)
    blocks = blocks_of(row, shown=500)
    shown = text_of(blocks)
    skipped = sum(part.skipped for block in blocks for part in block.segments)
    assert len(shown) + skipped == len(row.text)
    assert len(shown) < 6000
    assert text_of(blocks, cut=True)
    assert row.text.startswith(shown[:500])


def test_pages_hold_each_row_of_the_set_once(model_dir: Path, index_dir: Path) -> None:
    part = {"name": "r", "rows": 23, "facets": {"programming_language": ["Rust", "C"]}}
    prompt = {"template": "In {{ value }}: ", "facet": "spoken_language", "values": ["de"]}
    spec = SetSpec.model_validate({"name": "t", "slices": [{**part, "prompt": prompt}]})
    files = rows_files(spec.sources)
    index = open_index(files, model_dir, index_dir)
    seen = []
    for page in (1, 2, 3, 9):  # past the end is the last
        found = rendered_page(spec, index, files, model_dir, page, 10)
        assert (found.total, found.pages, found.page) == (23, 3, min(page, 3))
        seen += [row.row_id for row in found.rows] if page < 9 else []
        assert all(row.named == "German" for row in found.rows)
        assert all("In German:" in text_of(row.blocks) for row in found.rows)
        assert all(0 < row.fed_tokens < row.tokens <= 512 for row in found.rows)
    assert len(set(seen)) == len(seen) == 23

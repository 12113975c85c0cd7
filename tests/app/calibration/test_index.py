from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from app.calibration.index import load_index, open_index
from app.calibration.spec import SetSpec, Slice
from app.facets import Facet
from app.rendering.renderer import Rendered, Renderer
from app.sources.rows import messages_of, rows_files
from app.sources.starter_corpus import load_rows, split_of

PICKY = "{% if 'Hebrew' in messages[0].content %}{{ raise_exception('no Hebrew') }}{% endif %}"


def spec_of(**changes: object) -> SetSpec:
    fields = {
        "name": "t",
        "slices": (Slice(name="all", weight=1),),
        "token_budget": 1000,
        "sources": ("permissive",),
        **changes,
    }
    return SetSpec.model_validate(fields)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("index")


def test_every_row_has_its_length(model_dir: Path, cache: Path) -> None:
    renderer = Renderer.of_model(model_dir)
    index = load_index(rows_files(["permissive"]), renderer, cache)
    rows = load_rows(["permissive"], split=None)
    assert index.row_ids.tolist() == sorted(row["id"] for row in rows)
    lengths = dict(zip(index.row_ids.tolist(), index.tokens.tolist(), strict=True))
    for row in rows[::100]:
        [rendered] = renderer.render([messages_of(row)])
        assert isinstance(rendered, Rendered)
        assert lengths[row["id"]] == len(rendered.input_ids)


def test_the_second_time_nothing_is_rendered(
    model_dir: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = Renderer.of_model(model_dir)
    calls: list[tuple[int, int]] = []
    first = load_index(
        rows_files(["permissive", "copyleft"]), renderer, cache, lambda *a: calls.append(a)
    )
    done, total = calls[-1]
    assert done == total
    monkeypatch.setattr(Renderer, "lengths", None)
    second = load_index(rows_files(["permissive", "copyleft"]), renderer, cache)
    assert np.array_equal(first.row_ids, second.row_ids)
    assert np.array_equal(first.tokens, second.tokens)
    assert len(second) == len(load_rows(["permissive", "copyleft"], split=None))


def test_a_pool_has_the_packs_and_the_split_asked_for(model_dir: Path, cache: Path) -> None:
    index = open_index(rows_files(["permissive", "copyleft"]), model_dir, cache)
    for split in ("calibration", "held_out"):
        pool = index.pool(spec_of(split=split, max_length=100))
        assert set(pool.row_ids.tolist()) == {row["id"] for row in load_rows(["permissive"], split)}
        assert {split_of(row_id) for row_id in pool.row_ids.tolist()} == {split}
        assert pool.tokens.max() == 100


def test_an_index_is_kept_open_until_a_file_changes(
    model_dir: Path, cache: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(model_dir, tmp_path / "model")
    first = open_index(rows_files(["permissive"]), directory, cache)
    assert open_index(rows_files(["permissive"]), directory, cache) is first
    template = directory / "chat_template.jinja"
    template.write_text(template.read_text() + "{{ eos_token }}")
    changed = open_index(rows_files(["permissive"]), directory, cache)
    assert (changed.tokens == first.tokens + 1).all()


def test_rows_the_template_refuses_are_kept_apart(
    model_dir: Path, cache: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(model_dir, tmp_path / "model")
    template = directory / "chat_template.jinja"
    template.write_text(PICKY + template.read_text())
    index = open_index(rows_files(["permissive", "copyleft"]), directory, cache)
    hebrew = [
        row["id"]
        for row in load_rows(["permissive", "copyleft"], split=None)
        if row["spoken_language"] == "he"
    ]
    assert sorted(row.row_id for row in index.refused) == sorted(hebrew)
    assert all("no Hebrew" in row.reason for row in index.refused)
    assert not set(hebrew) & set(index.row_ids.tolist())

    facets = {Facet.SPOKEN_LANGUAGE: ("he", "de")}
    wanted = spec_of(slices=(Slice(name="s", weight=1, facets=facets),))
    seen = {row.row_id for row in index.refused if row.wanted_by(wanted)}
    assert seen == {
        row["id"] for row in load_rows(["permissive"]) if row["spoken_language"] == "he"
    }
    code = Slice(name="s", weight=1, balance=Facet.PROGRAMMING_LANGUAGE)
    assert not any(row.wanted_by(spec_of(slices=(code,))) for row in index.refused)

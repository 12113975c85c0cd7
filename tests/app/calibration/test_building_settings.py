"""What a composition sets beside its slices, as a built set has it: prompts, packing, cuts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from app.calibration.building import build_set
from app.errors import CompositionRefused, ModelRefused
from app.facets import Facet
from app.sources.rows import rows_files
from tests.app.calibration.essays import essays, spec_over, talk, write_source
from workers.engine.rows.calibration_rows import ModelLimits, read_rows


def test_a_prompt_names_each_value_equally_often_and_feeds_none(
    model_dir: Path, tmp_path: Path
) -> None:
    write_source(tmp_path / "sources", "essays", essays(30), spoken_language="en")
    prompt = {
        "template": "Answer in {{ value }}.\n***\n",
        "facet": "spoken_language",
        "values": ["ar", "de", "he", "en"],
    }
    part = {"name": "all", "rows": "all", "prompt": prompt}
    built = build_set(
        spec_over("essays", slices=[part]), tokenizer_dir=model_dir, sets_dir=tmp_path / "sets"
    )
    rows = built.table().to_pylist()
    named = Counter(row["named_value"] for row in rows)
    assert max(named.values()) - min(named.values()) <= 1
    spoken = built.facets[Facet.SPOKEN_LANGUAGE]
    assert spoken["en"].rows == built.rows
    assert spoken["en"].fed_tokens == sum(row["fed_tokens"] for row in rows)
    assert spoken["en"].named_tokens == 0  # what it names is what it feeds
    hebrew = [row for row in rows if row["named_value"] == "he"]
    assert (spoken["he"].rows, spoken["he"].fed_tokens) == (0, 0)
    assert spoken["he"].named_rows == len(hebrew)
    assert spoken["he"].named_tokens == sum(row["fed_tokens"] for row in hebrew) > 0
    assert all("Answer in Hebrew.\n***\nTell me more" in row["text"] for row in hebrew)
    assert built.report.prompt_tokens == sum(row["prompt_tokens"] for row in rows) > 0


def test_a_passage_is_the_answer_to_its_prompt_alone(model_dir: Path, tmp_path: Path) -> None:
    prompt = {"template": "Answer in {{ value }}.", "facet": "spoken_language", "values": ["he"]}
    part = {"name": "all", "rows": 4, "prompt": prompt}
    spec = spec_over("permissive", slices=[part])
    built = build_set(spec, tokenizer_dir=model_dir, sets_dir=tmp_path / "sets")
    texts = built.table(["text"])["text"].to_pylist()
    assert all("Answer in Hebrew." in text for text in texts)
    # the request that is made up for a passage without a prompt
    assert not any("Write" in text.partition("<|assistant|>")[0] for text in texts)


def test_a_budget_holds_prompts_too(model_dir: Path, tmp_path: Path) -> None:
    write_source(tmp_path / "sources", "essays", essays(40))
    for template in ("Say {{ value }}. " * 5, "{{ row.text }}"):  # the second only a build knows
        prompt = {"template": template, "facet": "spoken_language", "values": ["ar", "de"]}
        part = {"name": "all", "weight": 1, "prompt": prompt}
        spec = spec_over("essays", slices=[part], token_budget=1500)
        built = build_set(spec, tokenizer_dir=model_dir, sets_dir=tmp_path / "sets")
        assert 0 < built.tokens <= 1500
        assert built.tokens == sum(len(row["input_ids"]) for row in built.table().to_pylist())


def test_a_prompt_over_the_whole_row_is_the_same_of_older_revisions(
    model_dir: Path, tmp_path: Path
) -> None:
    write_source(tmp_path / "sources", "essays", essays(6))
    part = {"name": "all", "rows": "all", "prompt": {"template": "{{ hash(row|string) }} "}}
    spec = spec_over("essays", slices=[part])
    (file,) = rows_files(spec.sources, tmp_path / "sources")
    now = build_set(spec, tokenizer_dir=model_dir, sets_dir=tmp_path / "sets")
    pq.write_table(pq.read_table(file.path).drop_columns("own_license"), file.path)
    places = {"tokenizer_dir": model_dir, "sources_dir": tmp_path / "sources"}
    older = build_set(spec, sets_dir=tmp_path / "older", **places)
    assert older.table().equals(now.table())


def test_a_prompt_that_fails_sets_its_rows_aside(model_dir: Path, tmp_path: Path) -> None:
    write_source(tmp_path / "sources", "essays", essays(10))
    part = {"name": "all", "rows": 4, "prompt": {"template": "{{ row.nothing.more }}"}}
    built = build_set(
        spec_over("essays", slices=[part, {"name": "rest", "rows": 2}]),
        tokenizer_dir=model_dir,
        sets_dir=tmp_path / "sets",
    )
    assert built.rows == 2
    assert len(built.set_aside) == 4
    assert all("prompt template fails" in row.reason for row in built.set_aside)


def test_a_set_of_which_no_row_is_left_is_refused(model_dir: Path, tmp_path: Path) -> None:
    write_source(tmp_path / "sources", "essays", essays(10))
    loop = "{% for one in range(99999) %}"
    endless = f"{loop}{loop}{{{{ one }}}}{{% endfor %}}{{% endfor %}}"
    part = {"name": "all", "rows": 4, "prompt": {"template": endless}}
    where = {"tokenizer_dir": model_dir, "sets_dir": tmp_path / "sets"}
    with pytest.raises(CompositionRefused, match=r"No row of the set is left: row .*: the prompt"):
        build_set(spec_over("essays", slices=[part]), **where)
    with pytest.raises(CompositionRefused, match=r"hold no row: the shortest .* has \d+ tokens"):
        build_set(spec_over("essays", slices=[{"name": "all", "tokens": 1}]), **where)
    assert not (tmp_path / "sets").exists() or not list((tmp_path / "sets").iterdir())


def test_rows_are_packed_in_order_into_sequences_that_are_long_enough(
    model_dir: Path, tmp_path: Path
) -> None:
    write_source(tmp_path / "sources", "essays", essays(20))
    spec = spec_over("essays", packing=True, max_length=600)
    built = build_set(spec, tokenizer_dir=model_dir, sets_dir=tmp_path / "sets")
    filled = Counter()
    rows = built.table().to_pylist()
    for row in rows:
        filled[row["sequence"]] += len(row["input_ids"])
    assert [row["sequence"] for row in rows] == sorted(row["sequence"] for row in rows)
    assert max(filled.values()) <= 600
    assert built.report.sequences == len(filled) < built.rows
    limits = ModelLimits(vocabulary=10**6, positions=400)
    with pytest.raises(ModelRefused, match="packed into sequences of up to"):
        read_rows(built.directory, None, limits)


def test_what_a_slice_loses_by_cutting_is_told(model_dir: Path, tmp_path: Path) -> None:
    write_source(tmp_path / "sources", "essays", essays(10))
    spec = spec_over("essays", max_length=40, truncation="middle")
    built = build_set(spec, tokenizer_dir=model_dir, sets_dir=tmp_path / "sets")
    rows = built.table().to_pylist()
    lost = sum(row["full_tokens"] - 40 for row in rows)
    [part] = built.report.slices
    assert (part.cut_tokens, part.cut_rows) == (lost, len(rows)) == (built.report.cut_tokens, 9)
    assert all(0 < row["cut_start"] < row["cut_end"] < len(row["text"]) for row in rows)


def test_duplicates_are_marked_or_dropped(model_dir: Path, tmp_path: Path) -> None:
    talks = essays(12)
    again = [talk(talks[0][1]["content"].upper()), talk(talks[1][1]["content"] + " bridge")]
    write_source(tmp_path / "sources", "essays", talks + again)
    kept = build_set(spec_over("essays"), tokenizer_dir=model_dir, sets_dir=tmp_path / "sets")
    rows = kept.table().to_pylist()
    marked = {row["row_id"]: row["duplicate_of"] for row in rows if row["duplicate_of"]}
    assert kept.report.duplicates == len(marked) > 0
    assert set(marked.values()) <= {row["row_id"] for row in rows} - marked.keys()
    spec = spec_over("essays", duplicates="drop")
    once = build_set(spec, tokenizer_dir=model_dir, sets_dir=tmp_path / "sets")
    assert once.rows == kept.rows - len(marked)
    assert once.report.duplicates == 0
    assert once.report.left_out.duplicates == len(marked)


def test_short_rows_are_left_out_and_counted(model_dir: Path, tmp_path: Path) -> None:
    write_source(tmp_path / "sources", "essays", [*essays(8), talk("No."), talk("Never.")])
    spec = spec_over("essays", min_tokens=60)
    built = build_set(spec, tokenizer_dir=model_dir, sets_dir=tmp_path / "sets")
    assert all(row["full_tokens"] >= 60 for row in built.table().to_pylist())
    left_out = built.report.left_out.too_short
    whole = build_set(spec_over("essays"), tokenizer_dir=model_dir, sets_dir=tmp_path / "sets")
    assert whole.rows - built.rows == left_out > 0

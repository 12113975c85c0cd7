"""Building a set: its bytes, its report, and what is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.calibration import building
from app.calibration.building import build_set
from app.calibration.built_set import ROW_SCHEMA, BuiltSet, load_built_set
from app.calibration.spec import SetSpec, Slice
from app.errors import CompositionRefused, DiskFull, ModelRefused, NotFound, Refused
from app.facets import Facet
from app.rendering.tokenizer import load_tokenizer
from app.sources.starter_corpus import load_rows
from tests.app.calibration.essays import essays, spec_over, talk, write_source

SPEC = SetSpec(
    name="small",
    slices=(
        Slice(
            name="code",
            weight=2,
            facets={Facet.PROGRAMMING_LANGUAGE: ("Rust", "Haskell", "Pony")},
            balance=Facet.PROGRAMMING_LANGUAGE,
        ),
        Slice(name="text", weight=1, facets={Facet.SPOKEN_LANGUAGE: ("he", "de")}),
    ),
    token_budget=6000,
    max_length=256,
    seed=7,
    sources=("permissive",),
)

IN_A_PROCESS = """
import sys
from collections import Counter
from pathlib import Path
from app.calibration.building import build_set
from app.calibration.spec import SetSpec
spec, model, sets = sys.argv[1:]
sys.stdout.write(
    build_set(
        SetSpec.model_validate_json(spec), tokenizer_dir=Path(model), sets_dir=Path(sets)
    ).id
)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def built(model_dir: Path, home: Path, index_dir: Path) -> BuiltSet:
    return build_set(SPEC, tokenizer_dir=model_dir, sets_dir=home / "sets", index_dir=index_dir)


def test_the_columns_are_those_the_engine_reads(built: BuiltSet) -> None:
    table = built.table()
    assert table.schema.equals(ROW_SCHEMA)
    assert table.column_names == [
        "row_id",
        "source",
        "slice",
        "spoken_language",
        "programming_language",
        "domain",
        "license",
        "text",
        "input_ids",
        "fed_tokens",
        "named_tokens",
        "full_tokens",
        "prompt_tokens",
        "named_facet",
        "named_value",
        "turns",
        "cut_start",
        "cut_end",
        "duplicate_of",
        "sequence",
    ]


def test_rows_are_the_corpus_rows_rendered_and_cut(built: BuiltSet, model_dir: Path) -> None:
    corpus = {row["id"]: row for row in load_rows()}
    tokenizer = load_tokenizer(model_dir)
    rows = built.table().to_pylist()
    for row in rows:
        source = corpus[row["row_id"]]
        assert source["text"].strip() in row["text"]
        assert [row[key] for key in ("source", "license", "domain")] == [
            source[key] for key in ("source", "license", "domain")
        ]
        ids = tokenizer.encode([row["text"]], add_special_tokens=False)[0].ids
        assert row["input_ids"] == ids[:256]
        assert 0 < row["fed_tokens"] < len(row["input_ids"])
        assert row["named_tokens"] == 0
    assert len({row["row_id"] for row in rows}) == len(rows) == built.rows
    assert sum(len(row["input_ids"]) for row in rows) == built.tokens <= 6000


def test_the_report_has_the_keys_scripts_read(built: BuiltSet) -> None:
    document = json.loads(json.dumps(built.as_json()))
    assert {"id", "manifest", "rows", "tokens", "facets", "set_aside"} <= document.keys()
    assert Path(document["manifest"]).is_file()
    rows = built.table().to_pylist()
    for facet in Facet:
        for value, amount in document["facets"][facet.value].items():
            mine = [row for row in rows if row[facet.value] == value]
            assert amount == {
                "rows": len(mine),
                "fed_tokens": sum(row["fed_tokens"] for row in mine),
                "named_rows": 0,
                "named_tokens": 0,
            }
    assert set(document["facets"]["programming_language"]) == {"Rust", "Haskell"}
    assert set(document["facets"]["spoken_language"]) == {"he", "de"}
    assert "Slice 'code' has no rows in Pony." in document["warnings"]
    assert [short["value"] for short in document["shortfalls"]] == ["Pony"]
    assert document["set_aside"] == []


def test_the_id_is_the_hash_of_the_identity(built: BuiltSet) -> None:
    manifest = json.loads(built.manifest_file.read_text(encoding="utf-8"))
    canonical = json.dumps(
        manifest["identity"], sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    assert built.id == built.directory.name == hashlib.sha256(canonical.encode()).hexdigest()[:16]
    assert manifest["identity"]["row_ids"] == built.table(["row_id"])["row_id"].to_pylist()
    file = manifest["files"]["rows.parquet"]
    assert file["sha256"] == hashlib.sha256(built.rows_file.read_bytes()).hexdigest()


def test_a_set_that_is_there_is_not_built_again(
    built: BuiltSet, model_dir: Path, home: Path, index_dir: Path
) -> None:
    before = built.rows_file.stat()
    calls: list[tuple[int, int]] = []
    again = build_set(
        SPEC,
        tokenizer_dir=model_dir,
        sets_dir=home / "sets",
        index_dir=index_dir,
        progress=lambda *a: calls.append(a),
    )
    assert again == built
    assert built.rows_file.stat().st_mtime_ns == before.st_mtime_ns
    assert calls == []


@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"max_length": 255}, {"token_budget": 5999}, {"name": "other"}]
)
def test_another_composition_is_another_set(
    built: BuiltSet, model_dir: Path, home: Path, index_dir: Path, change: dict[str, object]
) -> None:
    spec = SPEC.model_copy(update=change)
    places = {"tokenizer_dir": model_dir, "sets_dir": home / "sets", "index_dir": index_dir}
    assert build_set(spec, **places).id != built.id


def test_two_processes_give_the_same_bytes(
    built: BuiltSet, model_dir: Path, tmp_path: Path
) -> None:
    for seed in ("1", "2"):
        home = tmp_path / seed
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.getcwd()}
        arguments = [SPEC.model_dump_json(), str(model_dir), str(home / "sets")]
        done = subprocess.run(
            [sys.executable, "-c", IN_A_PROCESS, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == built.id
        directory = home / "sets" / built.id
        assert sorted(file.name for file in directory.iterdir()) == [
            "manifest.json",
            "rows.parquet",
        ]
        for file in directory.iterdir():
            assert file.read_bytes() == (built.directory / file.name).read_bytes()


def test_progress_ends_at_its_total(model_dir: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    built = build_set(
        SPEC,
        tokenizer_dir=model_dir,
        sets_dir=tmp_path / "sets",
        progress=lambda *a: calls.append(a),
    )
    indexed = [call for call in calls if call[1] != built.rows]
    assert indexed[-1] == (len(load_rows(SPEC.sources, split=None)),) * 2
    assert calls[-1] == (built.rows, built.rows)


def test_rows_that_do_not_render_are_set_aside_with_the_reason(
    model_dir: Path, tmp_path: Path
) -> None:
    picky = tmp_path / "model"
    picky.mkdir()
    for file in model_dir.iterdir():
        (picky / file.name).write_bytes(file.read_bytes())
    template = (model_dir / "chat_template.jinja").read_text()
    refusal = "{% if 'Hebrew' in messages[0].content %}{{ raise_exception('no') }}{% endif %}"
    (picky / "chat_template.jinja").write_text(refusal + template)
    built = build_set(SPEC, tokenizer_dir=picky, sets_dir=tmp_path / "sets")
    hebrew = {row["id"] for row in load_rows(SPEC.sources) if row["spoken_language"] == "he"}
    assert {row.row for row in built.set_aside} == hebrew
    assert {row.reason for row in built.set_aside} == {"the chat template refused it: no"}
    assert "he" not in built.facets[Facet.SPOKEN_LANGUAGE]
    assert any("rows were set aside" in warning for warning in built.warnings)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"token_budget": 10**9}, "is more than the"),
        (
            {"slices": (Slice(name="p", weight=1, facets={Facet.DOMAIN: ("reasoning",)}),)},
            "Slice 'p' matches no row of the sources: it asks for domain Reasoning",
        ),
    ],
)
def test_a_refused_composition_leaves_nothing(
    model_dir: Path, index_dir: Path, tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    spec = SPEC.model_copy(update=change)
    with pytest.raises(CompositionRefused, match=sentence):
        build_set(spec, tokenizer_dir=model_dir, sets_dir=tmp_path / "sets", index_dir=index_dir)
    assert not (tmp_path / "sets").exists()


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(ModelRefused, match=r"no tokenizer\.json"):
        build_set(SPEC, tokenizer_dir=tmp_path / "model", sets_dir=tmp_path / "sets")


def test_a_full_disk_loses_nothing(
    built: BuiltSet, model_dir: Path, home: Path, index_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(building, "_write_manifest", full)
    before = sorted((home / "sets").iterdir())
    with pytest.raises(DiskFull):
        build_set(
            SPEC.model_copy(update={"seed": 99}),
            tokenizer_dir=model_dir,
            sets_dir=home / "sets",
            index_dir=index_dir,
        )
    assert sorted((home / "sets").iterdir()) == before
    assert load_built_set(built.directory) == built


def test_what_is_no_set_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="There is no built set"):
        load_built_set(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(Refused, match="is not the manifest of a built set"):
        load_built_set(tmp_path)


def test_a_manifest_changed_by_hand_is_refused(built: BuiltSet, tmp_path: Path) -> None:
    manifest = json.loads(built.manifest_file.read_text())
    manifest["identity"]["seed"] = 1
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(Refused, match="was changed after it was built"):
        load_built_set(tmp_path)


def test_a_pinned_revision_is_used_though_the_source_went_on(
    model_dir: Path, tmp_path: Path
) -> None:
    places = {"tokenizer_dir": model_dir, "sets_dir": tmp_path / "sets"}
    write_source(tmp_path / "sources", "essays", essays(10))
    first = build_set(spec_over("essays"), **places)
    pinned = {one["name"]: one["revision"] for one in first.identity["sources"]}
    write_source(tmp_path / "sources", "essays", [talk("Something else entirely.")], domain="law")
    second = build_set(spec_over("essays"), **places)
    assert second.id != first.id
    again = build_set(
        spec_over("essays"),
        tokenizer_dir=model_dir,
        sets_dir=tmp_path / "again",
        sources_dir=tmp_path / "sources",
        revisions=pinned,
    )
    assert again.rows_file.read_bytes() == first.rows_file.read_bytes()
    assert again.manifest_file.read_bytes() == first.manifest_file.read_bytes()
    with pytest.raises(CompositionRefused, match="is not here at revision 0000"):
        build_set(spec_over("essays"), revisions={"essays": "0000"}, **places)


def test_rows_that_two_sources_have_are_said_to_be_of_the_first(
    model_dir: Path, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        write_source(tmp_path / "sources", name, essays(8))
    parts = [{"name": name, "rows": "all", "sources": [name]} for name in ("first", "second")]
    spec = spec_over("first", sources=["first", "second"], slices=parts)
    with pytest.raises(CompositionRefused) as refused:
        build_set(spec, tokenizer_dir=model_dir, sets_dir=tmp_path / "sets")
    assert refused.value.sentence == (
        "Slice 'second' matches no row of the sources: it asks for any row of second. Widen it or "
        "take it out. A row that several sources of the set have counts for the first of them by "
        "name."
    )

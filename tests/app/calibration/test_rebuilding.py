"""The manifest of a built set, built again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.calibration.building import build_set
from app.calibration.rebuilding import read_manifest
from app.errors import CompositionRefused
from app.facets import Facet
from app.sources.relabelling import relabelled
from app.sources.rows import rows_file
from app.sources.store import load_manifest
from tests.app.calibration.essays import essays, spec_over, write_source


def test_a_set_of_rows_that_were_labelled_otherwise_since_is_built_again(
    model_dir: Path, tmp_path: Path
) -> None:
    sources = tmp_path / "sources"
    write_source(sources, "essays", essays(30), domain="code")
    there = rows_file("essays", sources)
    places = {"tokenizer_dir": model_dir, "sources_dir": sources}
    built = build_set(spec_over("essays"), sets_dir=tmp_path / "sets", **places)
    entry = load_manifest(there).entry.model_copy(update={"tags": {Facet.DOMAIN: "law"}})
    relabelled(entry, there, sources)
    today = build_set(spec_over("essays"), sets_dir=tmp_path / "sets", **places)
    assert (list(built.facets[Facet.DOMAIN]), list(today.facets[Facet.DOMAIN])) == (
        ["code"],
        ["law"],
    )
    kept = read_manifest(built.manifest_file)
    assert kept is not None
    again = build_set(kept.spec, sets_dir=tmp_path / "again", revisions=kept.revisions, **places)
    assert again.id == built.id != today.id
    assert again.rows_file.read_bytes() == built.rows_file.read_bytes()
    assert again.manifest_file.read_bytes() == built.manifest_file.read_bytes()


@pytest.mark.parametrize("what", ["format", "algorithm", "rendering", "duplicates"])
def test_a_manifest_of_another_version_is_refused(
    model_dir: Path, tmp_path: Path, what: str
) -> None:
    write_source(tmp_path / "sources", "essays", essays(5))
    built = build_set(spec_over("essays"), tokenizer_dir=model_dir, sets_dir=tmp_path / "sets")
    document = json.loads(built.manifest_file.read_bytes())
    document["identity"][what] = "older"
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(CompositionRefused, match="by another version of Calibrant"):
        read_manifest(file)


@pytest.mark.parametrize("text", ["name: a set", "[" * 100_000, '{"identity": 3}', "[]", ""])
def test_what_is_no_manifest_is_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "set.yaml"
    file.write_text(text, encoding="utf-8")
    assert read_manifest(file) is None

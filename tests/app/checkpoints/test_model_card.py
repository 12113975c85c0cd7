"""The model card: valid for a hub, and every number in it measured."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from huggingface_hub import ModelCard, ModelCardData

from app.base_models.models import BaseModelRecord
from app.checkpoints.facts import Facts, facts_of
from app.checkpoints.model_card import model_card
from app.checkpoints.serving import PARSERS, serve_commands
from app.coverage.picture import coverage_svg
from app.database import session_for
from app.formatting import fixed, integer, number, percent, size
from app.jobs.models import Job
from app.quality.gates import Gates, judge
from app.sources.entry import HubOrigin, SourceEntry

NUMBER = re.compile(r"(?<![\w.-])\d+(?:,\d{3})*(?:\.\d+)*(?:e[−-]?\d+)?(?: [kMGTP]?B| %)?(?![\w-])")


@pytest.fixture(scope="module")
def facts(filled) -> Facts:
    with session_for(filled.settings) as session:
        found = facts_of(session, filled.settings, filled.seeded.jobs["succeeded"])
    gates = Gates(kl_mean=0.01, slice_kl=0.003, router_same=0.8, verified=True)
    return found.model_copy(
        update={
            "checks": judge(gates, found.evaluation, found.verification),
            "versions": {"torch": "2.13.0", "llmcompressor": "0.14.0.1"},
        }
    )


def prose(card: str) -> str:
    """The card without its header, its code and its addresses."""
    body = card.split("---", 2)[2]
    body = re.sub(r"```.*?```", "", body, flags=re.S)
    return re.sub(r"`[^`]*`|<http[^>]*>|\\", "", body)


def figures(document: Any) -> Iterator[float]:
    """Every number of a JSON document, wherever it stands."""
    if isinstance(document, bool) or document is None:
        return
    if isinstance(document, int | float):
        yield float(document)
    elif isinstance(document, dict):
        for part in document.values():
            yield from figures(part)
    elif isinstance(document, list):
        yield float(len(document))
        for part in document:
            yield from figures(part)


def written(value: float) -> set[str]:
    """Every way a figure is written in a card."""
    ways = {integer(value), number(value), number(value, 2), fixed(value), fixed(value, 5)}
    return ways | {percent(value), percent(value, 0), size(value), str(value)}


def test_every_number_is_in_the_result(facts: Facts) -> None:
    known = {way for value in figures(facts.model_dump(mode="json")) for way in written(value)}
    texts = [
        *facts.recipe_words,
        facts.base.name,
        facts.base.architecture,
        *facts.versions.values(),
    ]
    texts += [check.asked + " " + (check.measured or "") for check in facts.checks]
    known |= {found for text in texts for found in NUMBER.findall(text)}
    known |= {"95 %", "0.14.0.1", "2.13.0"}  # the width of an interval; versions
    found = NUMBER.findall(prose(model_card(facts)))
    assert len(found) > 150
    assert [each for each in found if each not in known] == []


def test_a_made_up_number_would_be_found(facts: Facts) -> None:
    known = {way for value in figures(facts.model_dump(mode="json")) for way in written(value)}
    assert NUMBER.findall("| 0.07771 | 98,765,432 |") == ["0.07771", "98,765,432"]
    assert not {"0.07771", "98,765,432"} & known


def test_the_header_validates(facts: Facts) -> None:
    card = ModelCard(model_card(facts))
    assert isinstance(card.data, ModelCardData)
    assert card.data.library_name == "transformers"
    assert {"compressed-tensors", "awq", "int4", "moe"} <= set(card.data.tags or [])
    assert card.data.base_model is None, "a local directory is no repository of the hub"


def test_what_the_hub_knows_is_named(filled) -> None:
    with session_for(filled.settings) as session:
        job = session.get_one(Job, filled.seeded.jobs["succeeded"])
        model = session.get_one(BaseModelRecord, job.model_id)
        session.expunge_all()
        model.path = "/cache/models--MiniMaxAI--MiniMax-M2.1/snapshots/abc"
        entry = SourceEntry(name="permissive", origin=HubOrigin(id="HuggingFaceH4/ultrachat_200k"))
        job.spec = {**job.spec, "sources": [entry.model_dump(mode="json")]}
        session.add_all([model, job])
        session.flush()
        found = facts_of(session, filled.settings, job.id)
        session.rollback()
    data = ModelCard(model_card(found)).data
    assert data.base_model == "MiniMaxAI/MiniMax-M2.1"
    assert data.to_dict()["base_model_relation"] == "quantized"
    assert data.datasets == ["HuggingFaceH4/ultrachat_200k"]
    assert not found.base_is_there


def test_nothing_measured_is_nothing_claimed(filled) -> None:
    with session_for(filled.settings) as session:
        card = model_card(facts_of(session, filled.settings, filled.seeded.jobs["queued"]))
    for words in (
        "Size | not measured", "Mean KL to the original | not measured",
        "Verification | not measured", "Error by layer: not measured",
        "Routing of the calibration set: not measured", "Package versions: not measured",
    ):  # fmt: skip
        assert words in card, words
    assert "## Serve" not in card


def test_calibration_is_told_by_fed_and_named_tokens(facts: Facts) -> None:
    card = model_card(facts)
    assert "| Programming language | Rows | Fed tokens | Named tokens |" in card
    assert facts.set
    german = facts.set.facets["spoken_language"]["de"]
    assert f"| German | {german.rows} | {german.fed_tokens:,} | {german.named_tokens:,} |" in card


def test_a_name_cannot_break_the_card(facts: Facts) -> None:
    card = model_card(facts.model_copy(update={"name": "a | b\n<script>*x*"}))
    assert "# a \\| b \\<script>\\*x\\*" in card


def test_parsers_follow_the_architecture() -> None:
    known = serve_commands("MiniMaxM2ForCausalLM", "/data/my model", "M2 w4")
    assert "--tool-call-parser minimax_m2 " in known.vllm
    assert "--tool-call-parser minimax-m2 " in known.sglang
    assert "'/data/my model' --served-model-name M2-w4" in known.vllm
    unknown = serve_commands("Qwen3MoeForCausalLM", "/data/x", "x")
    assert "parser" not in unknown.vllm + unknown.sglang
    assert all(page.startswith("https://") for each in PARSERS.values() for page in each.read_from)


def test_the_picture_has_every_cell_and_stays_small() -> None:
    counts = np.arange(62 * 256).reshape(62, 256)
    picture = coverage_svg(counts, np.arange(62), "Tokens & <experts>")
    tree = ElementTree.fromstring(picture)  # noqa: S314 (our own)
    cells = sum(path.get("d").count("M") for path in tree.iter("{http://www.w3.org/2000/svg}path"))
    assert cells == 62 * 256
    assert len(picture) < 900_000
    assert "Tokens &amp; &lt;experts&gt;" in picture
    assert f"{counts.max():,}" in picture


def test_the_files_are_downloads_of_the_checkpoint(filled, html: dict) -> None:
    job = filled.seeded.jobs["succeeded"]
    card = filled.client.get(f"/checkpoints/{job}/README.md")
    assert card.text.startswith("---\nlibrary_name")
    assert "attachment" in card.headers["content-disposition"]
    picture = filled.client.get(f"/checkpoints/{job}/coverage.svg")
    assert picture.headers["content-type"] == "image/svg+xml"
    page = filled.client.get(f"/checkpoints/{job}", headers=html).text
    for words in (f"/checkpoints/{job}/README.md", "coverage.svg", f"/jobs/{job}/report"):
        assert words in page
    assert filled.client.get("/checkpoints/none/README.md").status_code == 404
    assert filled.client.get("/checkpoints/none/coverage.svg").status_code == 404


@pytest.mark.parametrize("state", ["succeeded", "running", "failed", "queued"])
def test_every_job_has_a_report(filled, html: dict, state: str) -> None:
    job = filled.seeded.jobs[state]
    page = filled.client.get(f"/jobs/{job}/report", headers=html)
    assert page.status_code == 200
    file = filled.client.get(f"/jobs/{job}/report.html").text
    assert "<link" not in file
    assert "<script" not in file
    assert json.loads(filled.client.get(f"/jobs/{job}/report").text)["facts"]["job_id"] == job


def test_a_base_that_is_gone_is_said(filled, html: dict) -> None:
    model = Path(filled.settings.data_dir) / "models" / "MiniMax-M2-demo" / "config.json"
    moved = model.rename(model.with_suffix(".gone"))
    try:
        page = filled.client.get(f"/checkpoints/{filled.seeded.jobs['succeeded']}", headers=html)
        report = filled.client.get(f"/jobs/{filled.seeded.jobs['succeeded']}/report", headers=html)
    finally:
        moved.rename(model)
    assert "The base model is no longer at" in page.text
    assert "directory is gone" in report.text


def test_experts_no_token_reached_are_named(facts: Facts) -> None:
    assert facts.coverage is not None
    assert facts.coverage.unreached == []
    assert "Reached by no token" not in model_card(facts)
    coverage = facts.coverage.model_copy(
        update={"unreached": [(1, 3), (2, 0)], "treated": "rounded to nearest as it is"}
    )
    card = model_card(facts.model_copy(update={"coverage": coverage}))
    assert "Reached by no token: layer 1: 3; layer 2: 0. Each of them is rounded" in card

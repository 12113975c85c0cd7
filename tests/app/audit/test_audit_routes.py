"""The audit's pages: verdict and findings, tables, rows, and the way to mend what was found."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.audit.service import audit_built_set
from app.calibration.building import build_set
from app.calibration.mending import Mend, mended
from app.calibration.spec import SetSpec, Slice
from app.facets import Facet
from app.settings import Settings
from tests.app.audit.test_service import conversations_of, write_source
from tests.seed import small_spec
from tests.seeded_model import write_model

SEED = SetSpec(
    name="Made by the seed's method",
    sources=("seed-text", "seed-code"),
    slices=(Slice(name="Everything", rows="all"),),
    max_length=1024,
)


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny")


@pytest.fixture
def model_id(client: TestClient, model_dir: Path) -> str:
    return client.post("/models", json={"path": str(model_dir)}).json()["model"]["id"]


def saved(client: TestClient, spec: SetSpec) -> str:
    return client.post("/sets", json=spec.model_dump(mode="json")).json()["id"]


@pytest.fixture
def audited(client: TestClient, settings: Settings, model_dir: Path) -> str:
    write_source(settings.sources_dir, "seed-text", conversations_of("multilingual"))
    write_source(settings.sources_dir, "seed-code", conversations_of("code"))
    built = build_set(
        SEED,
        tokenizer_dir=model_dir,
        sets_dir=settings.sets_dir,
        sources_dir=settings.sources_dir,
    )
    audit_built_set(built, sources_dir=settings.sources_dir, index_dir=settings.index_dir)
    return saved(client, SEED)


def test_a_set_that_was_not_audited_offers_it(
    client: TestClient, html: dict, model_id: str
) -> None:
    set_id = saved(client, small_spec())
    assert f'href="/sets/{set_id}/audit"' in client.get(f"/sets/{set_id}", headers=html).text
    page = client.get(f"/sets/{set_id}/audit", headers=html).text
    assert "Not audited yet" in page
    assert 'name="kind" value="audit"' in page
    assert f'value="{model_id}"' in page
    assert client.get(f"/sets/{set_id}/audit").json()["report"] is None
    assert client.get(f"/sets/{set_id}/audit/chart").status_code == 404


def test_the_defects_of_the_seeds_method_are_on_the_page(
    client: TestClient, html: dict, audited: str
) -> None:
    page = client.get(f"/sets/{audited}/audit", headers=html).text
    assert "The set is not what it says" in page
    assert "named by prompts" in page
    assert "never fed: Arabic, Hebrew, Hindi, Japanese" in page
    assert "named, not fed" in page
    assert f'data-chart="/sets/{audited}/audit/chart' in page


def test_json_and_csv_say_the_same(client: TestClient, audited: str) -> None:
    view = client.get(f"/sets/{audited}/audit").json()
    assert view["built"][0]["is_audited"] is True
    assert view["report"]["named_but_absent"]["programming_language"] == ["COBOL", "Haskell", "Zig"]
    text = client.get(f"/sets/{audited}/audit", params={"format": "csv"}).text
    rows = list(csv.DictReader(io.StringIO(text)))
    rust = next(row for row in rows if row["value"] == "Rust")
    assert int(rust["found_tokens"]) > 0
    assert int(rust["labelled_rows"]) == 0
    hebrew = next(row for row in rows if row["value"] == "he")
    assert (hebrew["found_tokens"], hebrew["named_rows"]) == ("0", hebrew["named_only_rows"])
    chart = client.get(f"/sets/{audited}/audit/chart").json()
    assert sum(chart["data"][0]["y"]) == view["report"]["rows"]


def test_rows_of_a_finding_and_duplicates_are_shown(
    client: TestClient, html: dict, audited: str
) -> None:
    view = client.get(f"/sets/{audited}/audit").json()
    groups = view["duplicates"]["groups"]
    assert groups
    assert all(group["size"] >= len(group["rows"]) >= 2 for group in groups)
    addresses = [found["rows_address"] for found in view["findings"] if found["rows_address"]]
    page = client.get(addresses[0], headers=html)
    assert page.status_code == 200
    assert page.text.count('class="sample"') >= 1
    assert len(client.get(addresses[0]).json()["rows"]) == page.text.count('class="sample"')
    last = client.get(f"/sets/{audited}/audit", params={"page": 999}).json()["duplicates"]
    assert last["page"] == last["pages"]


def test_another_sets_id_and_unknown_rows_are_refused(client: TestClient, audited: str) -> None:
    assert client.get("/sets/none/audit").status_code == 404
    answer = client.get(f"/sets/{audited}/audit", params={"built": "0123"})
    assert (answer.status_code, "was built of this composition" in answer.text) == (404, True)
    view = client.get(f"/sets/{audited}/audit").json()
    rows = {"built": view["built_id"], "row": ["../../etc/passwd"]}
    assert client.get(f"/sets/{audited}/audit/rows", params=rows).json()["rows"] == []
    assert client.get(f"/sets/{audited}/audit/rows").status_code == 422


@pytest.mark.usefixtures("model_id")
def test_a_finding_leads_to_a_composer_that_mends_it(
    client: TestClient, html: dict, audited: str
) -> None:
    page = client.get(f"/sets/{audited}/audit", headers=html).text
    address = re.search(r'href="([^"]+facet=spoken_language[^"]+)"', page)
    assert address
    composer = client.get(address[1].replace("&amp;", "&"), headers=html).text
    assert 'value="Arabic, Hebrew, Hindi and 1 more"' in composer
    slice_ = composer[composer.index("Arabic, Hebrew, Hindi") :]
    assert re.search(r'value="he"[^>]*checked', slice_)


def test_mending_changes_what_is_asked_and_nothing_else() -> None:
    spec = small_spec()
    assert mended(spec, Mend()) == spec
    assert mended(spec, Mend(duplicates="drop")) == spec.model_copy(update={"duplicates": "drop"})
    asked = Mend(facet=Facet.SPOKEN_LANGUAGE, value=["he", "ar"])
    more = mended(spec, asked, ("copyleft", "permissive"))
    added = more.slices[-1]
    assert (added.name, added.weight, added.balance) == ("Hebrew, Arabic", 2, asked.facet)
    assert added.facets == {Facet.SPOKEN_LANGUAGE: ("he", "ar")}
    assert [part.model_copy(update={"sources": ()}) for part in more.slices[:-1]] == [*spec.slices]
    assert set(more.sources) == {*spec.sources, "copyleft", "permissive"}
    again = mended(more, asked)
    assert again.slices[-1].name == "Hebrew, Arabic (2)"
    assert SetSpec.model_validate(again.model_dump()) == again
    fixed = mended(SEED, asked)
    assert fixed.slices[-1].tokens == 4_000
    assert fixed.slices[0].sources == SEED.sources

"""A damaged file closes the pages that are about it, and is named in place on all others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from app.database import migrate, session_for
from app.jobs import files
from app.jobs.service import get_job
from app.settings import Settings
from tests.app.conftest import Filled, client_of
from tests.seed import second_job, seed


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """A filled installation with a second finished job, to do damage in."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("damaged"), assets="local")
    migrate(settings)
    seeded = seed(settings)
    jobs = {**seeded.jobs, "other": second_job(settings, seeded)}
    return Filled(settings, replace(seeded, jobs=jobs), client_of(settings))


@contextmanager
def damaged(path: Path, content: bytes | None = None) -> Iterator[None]:
    """A file that has half of its bytes, or others, for a while."""
    whole = path.read_bytes() if path.is_file() else None
    path.write_bytes((whole or b"")[: len(whole or b"") // 2] if content is None else content)
    try:
        yield
    finally:
        path.unlink() if whole is None else path.write_bytes(whole)


def test_a_damaged_coverage_closes_neither_report_nor_card_nor_comparison(
    furnished: Filled, html: dict
) -> None:
    job_id, other = furnished.seeded.jobs["succeeded"], furnished.seeded.jobs["other"]
    pages = [f"/jobs/{job_id}/report", f"/jobs/{job_id}/report.html"]
    comparison = f"/compare?jobs={other},{job_id}"
    path = furnished.settings.jobs_dir / job_id / files.COVERAGE
    with damaged(path):
        reports = [furnished.client.get(page, headers=html) for page in pages]
        card = furnished.client.get(f"/checkpoints/{job_id}/README.md")
        compared = furnished.client.get(comparison, headers=html)
        view = furnished.client.get(comparison).json()
        own = furnished.client.get(f"/jobs/{job_id}/coverage", headers=html)
    assert [page.status_code for page in (*reports, card, compared)] == [200] * 4
    for report in reports:
        assert "Cannot be read: the job's coverage.npz is damaged." in report.text
        assert "KL by slice" in report.text
        assert str(furnished.settings.data_dir / "jobs") not in report.text
    assert "Routing of the calibration set: cannot be read, coverage.npz is damaged." in card.text
    assert "coverage.svg" not in card.text
    assert f"B: {path} is not a coverage file" in compared.text
    assert [subject["coverage_problem"] is None for subject in view["subjects"]] == [True, False]
    assert all(
        row["values"][0] is not None and row["values"][1] is None for row in view["coverage"]
    )
    assert view["pairs"][0]["problem"] is None
    assert own.status_code == 422
    assert "Cannot be read" not in furnished.client.get(pages[0], headers=html).text


@pytest.mark.parametrize("content", [b"{", b"[]"])
def test_a_damaged_manifest_of_a_checkpoint_is_said_where_its_versions_would_be(
    furnished: Filled, html: dict, content: bytes
) -> None:
    job_id, other = furnished.seeded.jobs["succeeded"], furnished.seeded.jobs["other"]
    with damaged(furnished.settings.checkpoints_dir / job_id / "calibrant.json", content):
        report = furnished.client.get(f"/jobs/{job_id}/report", headers=html)
        card = furnished.client.get(f"/checkpoints/{job_id}/README.md")
        compared = furnished.client.get(f"/compare?jobs={job_id},{other}", headers=html)
    assert "Package versions: cannot be read, calibrant.json is damaged." in report.text
    assert "Package versions: cannot be read, calibrant.json is damaged." in card.text
    assert "calibrant.json is damaged (" in compared.text


def test_rows_whose_texts_are_damaged_are_shown_without(furnished: Filled, html: dict) -> None:
    job_id = furnished.seeded.jobs["succeeded"]
    with session_for(furnished.settings) as session:
        built = (get_job(session, job_id).result or {})["set_id"]
    rows = furnished.settings.sets_dir / built / "rows.parquet"
    with damaged(rows):
        expert = furnished.client.get(f"/jobs/{job_id}/coverage/experts/1/1", headers=html)
        chosen = furnished.client.get(f"/jobs/{job_id}/coverage/rows?budget=20000", headers=html)
    for page in (expert, chosen):
        assert page.status_code == 200
        assert page.text.count(f"{rows} is damaged (") == 1
    assert "is not kept" not in expert.text


def test_a_damaged_build_closes_no_page_of_a_set(furnished: Filled, html: dict) -> None:
    with session_for(furnished.settings) as session:
        result = get_job(session, furnished.seeded.jobs["succeeded"]).result or {}
    client, set_id = furnished.client, furnished.seeded.set_id
    manifest = furnished.settings.sets_dir / result["set_id"] / "manifest.json"
    before = client.get(f"/sets/{set_id}").json()["versions"]
    others = [one for one in before if one["id"] != result["set_id"]]
    assert len(others) == len(before) - 1
    content = json.loads(manifest.read_bytes())
    for bytes_ in (None, b"[]", json.dumps({**content, "id": "0" * 16}).encode()):
        with damaged(manifest, bytes_):
            for address in (f"/sets/{set_id}", "/sets", "/sets/diff", f"/sets/{set_id}/audit"):
                assert client.get(address, headers=html).status_code == 200
            assert client.get(f"/sets/{set_id}").json()["versions"] == others


def test_a_damaged_build_keeps_nobody_from_deleting(furnished: Filled) -> None:
    spec = {"name": "short-lived", "slices": [{"name": "all", "weight": 1}], "token_budget": 500}
    saved = furnished.client.post("/sets", json=spec).json()["id"]
    broken = furnished.settings.sets_dir / "0123456789abcdef"
    broken.mkdir()
    (broken / "manifest.json").write_text("{")
    try:
        assert furnished.client.post(f"/sets/{saved}/delete").status_code == 200
    finally:
        shutil.rmtree(broken)

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app import cli
from app.base_models.service import add_model
from app.comparison.views import ComparisonRefused, comparison_of_directories
from app.database import migrate, session_for
from app.jobs.models import Job
from app.settings import Settings, get_settings
from tests import seed as seeding
from tests.app.conftest import Filled, client_of
from tests.app.quality.evaluated import rows_of
from tests.seed import second_job, seed


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Filled, str]:
    """An installation with two jobs that can be compared."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("two"), assets="local")
    migrate(settings)
    seeded = seed(settings)
    other = second_job(settings, seeded)
    return Filled(settings, seeded, client_of(settings)), f"{seeded.jobs['succeeded']},{other}"


def test_the_page_says_what_changed_beyond_chance(two, html: dict) -> None:
    filled, jobs = two
    page = filled.client.get(f"/compare?jobs={jobs}", headers=html).text
    for words in (
        "B is better beyond chance in COBOL (−", "The others did not change beyond chance (12",
        "Benjamini and Hochberg", "Settings that differ", "experts-w4a16-g32-attn8",
        "Worst fed expert", "Error by layer",
    ):  # fmt: skip
        assert words in page, words
    assert page.index("What is compared") < page.index("Benjamini and Hochberg")


def test_json_has_every_part(two) -> None:
    filled, jobs = two
    view = filled.client.get(f"/compare?jobs={jobs}").json()
    names = {setting["name"]: setting["values"] for setting in view["settings"]}
    assert names["recipe name"] == ["experts-w4a16-g32", "experts-w4a16-g32-attn8"]
    assert names["recipe groups attention bits"] == [None, "8"]
    assert view["same_settings"] > 10
    pair = view["pairs"][0]
    verdicts = {one["value"]: one["verdict"] for one in pair["slices"]}
    assert verdicts.pop("COBOL") == "better"
    assert set(verdicts.values()) == {"no change"}
    assert pair["shared"] == 140
    assert len(view["layers"]) == 6


def test_each_job_stands_to_the_gates_that_are_set(two, html: dict) -> None:
    filled, jobs = two
    address = f"/compare?jobs={jobs}"
    before = filled.client.get(address).json()
    assert [one["gates"] for one in before["subjects"]] == [None, None]
    assert ">Gates</a>" not in filled.client.get(address, headers=html).text
    means = sorted(one["evaluation"]["kl_mean"] for one in before["subjects"])
    filled.client.post("/gates", json={"kl_mean": sum(means) / 2})
    try:
        after = filled.client.get(address).json()
        passed = {one["evaluation"]["kl_mean"]: one["gates"] for one in after["subjects"]}
        assert passed == {means[0]: "passed", means[1]: "failed"}
        page = filled.client.get(address, headers=html).text
        assert ">Gates</a>" in page
        assert page.count("state-passed") == page.count("state-failed") == 1
    finally:
        filled.client.post("/gates", json={})


def test_csv_has_slices_and_layers(two) -> None:
    filled, jobs = two
    text = filled.client.get(f"/compare?jobs={jobs}&format=csv").text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 1 + 13
    assert {row["verdict"] for row in rows} == {"better", "no change"}
    layers = filled.client.get(f"/compare/layers?jobs={jobs}&format=csv").text
    assert len(list(csv.DictReader(io.StringIO(layers)))) == 12


def test_charts_have_titles_and_units(two) -> None:
    filled, jobs = two
    layers = filled.client.get(f"/compare/layers/chart?jobs={jobs}").json()
    assert [trace["name"][:2] for trace in layers["data"]] == ["A:", "B:"]
    slices = filled.client.get(f"/compare/slices/chart?jobs={jobs}&pair=0").json()
    assert "nats a token" in slices["layout"]["xaxis"]["title"]["text"]
    assert len(slices["data"][0]["x"]) == 13
    assert filled.client.get(f"/compare/slices/chart?jobs={jobs}&pair=3").status_code == 422


def test_repeated_fields_are_the_same(two) -> None:
    filled, jobs = two
    first, second = jobs.split(",")
    repeated = filled.client.get("/compare", params=[("jobs", first), ("jobs", second)]).json()
    assert repeated == filled.client.get(f"/compare?jobs={jobs}").json()


def test_choosing_begins_with_a_list(two, html: dict) -> None:
    filled, jobs = two
    page = filled.client.get("/compare", headers=html).text
    assert all(job in page for job in jobs.split(","))
    assert "Compare the ticked jobs" in filled.client.get("/jobs", headers=html).text
    assert "Compare the ticked" in filled.client.get("/checkpoints", headers=html).text


def test_ticked_in_a_list_the_oldest_is_the_one_held_against(two, html: dict) -> None:
    filled, jobs = two
    older, newer = jobs.split(",")
    for address in ("/compare", "/checkpoints"):
        page = filled.client.get(address, headers=html).text
        assert '<input type="hidden" name="first" value="oldest">' in page
    ticked = f"/compare?jobs={newer}&jobs={older}"
    assert filled.client.get(ticked).json()["jobs"] == f"{newer},{older}"
    view = filled.client.get(f"{ticked}&first=oldest").json()
    assert view["jobs"] == f"{older},{newer}"
    assert (view["pairs"][0]["first"], view["subjects"][0]["id"]) == ("A", older)
    assert filled.client.get(f"{ticked}&first=cheapest").status_code == 422


def test_one_job_is_not_two(two, html: dict) -> None:
    filled, jobs = two
    one = filled.client.get(f"/compare?jobs={jobs.split(',')[0]}", headers=html)
    assert one.status_code == 422
    assert "1 job was chosen: choose two to 6" in one.text
    assert filled.client.get("/compare").status_code == 422
    assert filled.client.get("/compare?jobs=nobody,none").status_code == 404


def test_what_was_not_measured_says_so(two, html: dict) -> None:
    filled, jobs = two
    queued = filled.seeded.jobs["queued"]
    page = filled.client.get(f"/compare?jobs={jobs},{queued}", headers=html).text
    assert f"C ({queued}) cannot be compared by slice: its error on held-out rows was not" in page
    quiet = re.findall(r'<td class="n">\s*<span class="quiet">not measured</span>', page)
    assert len(quiet) >= 5 + 1 + 2 * 6  # its evaluation, its size, two errors of every layer
    assert not re.search(r'<td class="n">\s*not measured', page)


def test_rows_of_before_they_were_kept(two) -> None:
    filled, jobs = two
    third = second_job(filled.settings, filled.seeded)
    (filled.settings.jobs_dir / third / "evaluation.npz").unlink()
    view = filled.client.get(f"/compare?jobs={jobs},{third}").json()
    assert "Evaluate it again" in view["pairs"][1]["problem"]


def test_different_models_are_refused(two, tmp_path: Path) -> None:
    filled, jobs = two
    with session_for(filled.settings) as session:
        other = add_model(session, seeding.write_model(tmp_path / "other", experts=16))
        first = session.get_one(Job, jobs.split(",")[0])
        job = Job(**first.model_dump() | {"id": "another", "model_id": other.id})
        session.add(job)
        session.commit()
    refused = filled.client.get(f"/compare?jobs={first.id},another")
    assert refused.status_code == 422
    assert "is of MiniMax-M2-demo and job another of other" in refused.json()["error"]


def test_the_command_says_the_same(two, monkeypatch: pytest.MonkeyPatch) -> None:
    filled, jobs = two
    monkeypatch.setenv("CALIBRANT_DATA_DIR", str(filled.settings.data_dir))
    get_settings.cache_clear()
    found = CliRunner().invoke(cli.app, ["compare", *jobs.split(","), "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout) == filled.client.get(f"/compare?jobs={jobs}").json()
    plain = CliRunner().invoke(cli.app, ["compare", *jobs.split(",")])
    assert "better beyond chance" in plain.stdout


def test_directories_of_the_command_line_are_compared(two) -> None:
    filled, jobs = two
    directories = [str(filled.settings.jobs_dir / job) for job in jobs.split(",")]
    found = CliRunner().invoke(cli.app, ["compare", *directories, "--json"])
    pair = json.loads(found.stdout)["pairs"][0]
    assert pair["overall"]["rows"] == 140


def test_directories_of_other_rows_are_refused(two, tmp_path: Path) -> None:
    filled, jobs = two
    with (tmp_path / "evaluation.npz").open("wb") as stream:
        rows_of(kl=[1, 2], tokens=[5, 6], row_ids=["a", "b"]).save(stream)
    measured = filled.settings.jobs_dir / jobs.split(",")[0]
    with pytest.raises(ComparisonRefused, match="they share 0"):
        comparison_of_directories([measured, tmp_path])

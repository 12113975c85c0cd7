from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import Session

from app.base_models.service import get_model
from app.calibration.service import get_set
from app.database import utc_now
from app.jobs import live, record, service
from app.jobs.events import Progress, StepStarted
from app.jobs.states import JobState, Step
from app.jobs.views import job_view
from app.settings import Settings
from tests.seed import queued_job, seed, small_spec
from tests.seeded_model import write_model


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "lost", "running", "queued"])
def test_a_job_in_every_state_has_its_page(filled, html: dict, state: str) -> None:
    job_id = filled.seeded.jobs[state]
    page = filled.client.get(f"/jobs/{job_id}", headers=html)
    assert page.status_code == 200
    assert f"state-{state}" in page.text
    is_live = state in {"running", "queued"}
    assert ("hx-sse:connect" in page.text) is is_live
    assert (f"/jobs/{job_id}/cancel" in page.text) is is_live
    ended_early = state in {"failed", "cancelled", "lost"}
    assert (f"/jobs/{job_id}/retry" in page.text) is ended_early
    assert ('id="change-recipe"' in page.text) is (state == "failed")


def test_a_queued_job_says_how_many_wait_before_it(
    client: TestClient, settings: Settings, session: Session, html: dict
) -> None:
    seeded = seed(settings)
    saved, model = get_set(session, seeded.set_id), get_model(session, seeded.model_id)
    first = seeded.jobs["queued"]
    second = queued_job(session, settings, saved, model)
    second.retry_of = first
    session.commit()
    assert "next in line" in client.get(f"/jobs/{first}", headers=html).text
    page = client.get(f"/jobs/{second.id}", headers=html).text
    assert "1 job waits before it" in page
    assert re.search(rf'{second.id}, retry of\s+<a href="/jobs/{first}">', page)


def test_a_running_job_says_when_it_was_heard_from(filled, html: dict) -> None:
    page = filled.client.get(f"/jobs/{filled.seeded.jobs['running']}", headers=html).text
    assert "last heard from" in page
    assert "3 of 6 layers" in page
    assert "layer 3: batch 117 of 143" in page
    assert "about 8 h 20 min left" in page
    assert "as it comes" in page


def test_a_succeeded_job_leads_to_its_results(filled, html: dict) -> None:
    job_id = filled.seeded.jobs["succeeded"]
    page = filled.client.get(f"/jobs/{job_id}", headers=html).text
    for address in (f"/jobs/{job_id}/coverage", f"/jobs/{job_id}/errors", f"/checkpoints/{job_id}"):
        assert f'href="{address}"' in page


def test_steps_of_an_ended_job_wait_for_nothing(filled, html: dict) -> None:
    page = filled.client.get(f"/jobs/{filled.seeded.jobs['cancelled']}", headers=html).text
    assert "not run" in page
    assert '<span class="quiet">waiting</span>' not in page


def test_the_list_tells_kinds_apart_and_when_a_job_will_be_done(filled, html: dict) -> None:
    page = filled.client.get("/jobs?state=running", headers=html).text
    assert "<td>quantize</td>" in page
    assert "about 8 h 20 min left" in page
    assert "<progress" in page


def test_what_is_left_of_a_step_at_its_pace(
    session: Session, settings: Settings, tmp_path: Path
) -> None:
    from app.base_models.service import add_model
    from app.calibration.service import save_set
    from tests.seed import queued_job

    model = add_model(session, write_model(tmp_path / "tiny"))
    job = queued_job(session, settings, save_set(session, small_spec()), model)
    begun = utc_now()
    heard = begun + timedelta(seconds=30)
    record.keep(session, job.id, 1, StepStarted(step=Step.PROFILE, at=begun))
    for done, left in ((1, None), (25, 90.0)):
        progress = Progress(step=Step.PROFILE, done=done, total=100, unit="batches", at=heard)
        record.keep(session, job.id, 2, progress)
        session.expire_all()
        steps = job_view(session, settings, job.id).steps
        assert steps[1].eta_seconds == left


def test_a_failed_job_says_why(filled, html: dict) -> None:
    page = filled.client.get(f"/jobs/{filled.seeded.jobs['failed']}", headers=html).text
    assert "no room left on the disk" in page


def test_the_json_twin(filled) -> None:
    view = filled.client.get(f"/jobs/{filled.seeded.jobs['running']}").json()
    assert view["job"]["state"] == "running"
    states = [step["state"] for step in view["steps"]]
    assert states == ["done", "done", "running", "waiting", "waiting", "waiting"]
    assert view["steps"][2]["share"] == 0.5
    assert [layer["layer"] for layer in view["layers"]] == [0, 1, 2]


def test_the_list_filters_by_state(filled, html: dict) -> None:
    view = filled.client.get("/jobs?state=failed").json()
    assert [job["id"] for job in view["jobs"]] == [filled.seeded.jobs["failed"]]
    assert sum(view["counts"].values()) == 6
    assert filled.client.get("/jobs?state=failed", headers=html).status_code == 200
    assert filled.client.get("/jobs?state=cancelling", headers=html).text.count("<tr>") == 0


def test_the_list_as_csv(filled) -> None:
    rows = list(csv.DictReader(io.StringIO(filled.client.get("/jobs?format=csv").text)))
    assert {row["state"] for row in rows} == set(filled.seeded.jobs)


@pytest.mark.parametrize("query", ["page=0", "page=x", "state=asleep"])
def test_a_bad_query_is_refused_by_the_name_of_the_field(filled, query: str) -> None:
    answer = filled.client.get(f"/jobs?{query}")
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(f"{query.partition('=')[0]}: ")


def test_a_page_past_the_last_is_the_last(filled) -> None:
    view = filled.client.get("/jobs?page=999").json()
    assert view["page"] == view["pages"] == 1


@pytest.mark.parametrize(
    "path", ["", "/log", "/log.txt", "/coverage", "/errors", "/errors/charts/layers"]
)
def test_an_unknown_job_is_not_found(client: TestClient, html: dict, path: str) -> None:
    assert client.get(f"/jobs/none{path}").status_code == 404
    assert client.get(f"/jobs/none{path}", headers=html).status_code == 404


def test_get_does_not_cancel(client: TestClient) -> None:
    assert client.get("/jobs/x/cancel").status_code == 405


def test_the_log_comes_in_parts_by_offset(filled) -> None:
    job_id = filled.seeded.jobs["succeeded"]
    first = filled.client.get(f"/jobs/{job_id}/log?offset=0").json()
    assert first["text"].startswith("2026-11-23")
    rest = filled.client.get(f"/jobs/{job_id}/log?offset={first['offset']}").json()
    assert rest == {"job_id": job_id, "text": "", "offset": first["offset"], "ended": True}
    whole = filled.client.get(f"/jobs/{job_id}/log.txt")
    assert whole.text == first["text"]
    assert filled.client.get(f"/jobs/{job_id}/log?offset=-1").status_code == 422


def test_the_log_fragment_asks_on_until_the_job_has_ended(filled, html: dict) -> None:
    headers = html | {"hx-request": "true"}
    running = filled.client.get(f"/jobs/{filled.seeded.jobs['running']}/log", headers=headers).text
    assert 'hx-trigger="load delay:' in running
    job_id = filled.seeded.jobs["succeeded"]
    size = filled.client.get(f"/jobs/{job_id}/log").json()["offset"]
    ended = filled.client.get(f"/jobs/{job_id}/log?offset={size}", headers=headers).text
    assert "hx-get" not in ended


@pytest.mark.parametrize(
    ("state", "said"), [("cancelled", "The job wrote nothing."), ("queued", "Nothing yet.")]
)
def test_an_empty_log_says_so(filled, html: dict, state: str, said: str) -> None:
    assert said in filled.client.get(f"/jobs/{filled.seeded.jobs[state]}/log", headers=html).text


def test_a_job_that_cannot_be_sent_is_kept(client: TestClient, html: dict, tmp_path: Path) -> None:
    """No broker runs here: the page says so, and the job waits."""
    directory = write_model(tmp_path / "tiny")
    model = client.post("/models", json={"path": str(directory)}).json()["model"]["id"]
    saved = client.post("/sets", json=small_spec().model_dump(mode="json")).json()["id"]
    answer = client.post("/jobs", data={"set_id": saved, "model_id": model}, headers=html)
    assert answer.status_code == 503
    assert "does not answer" in answer.text
    waiting = client.get("/jobs?state=queued").json()["jobs"]
    assert len(waiting) == 1

    job_id = waiting[0]["id"]
    cancelled = client.post(f"/jobs/{job_id}/cancel", headers=html)
    assert cancelled.status_code == 303
    assert client.get(f"/jobs/{job_id}").json()["job"]["state"] == "cancelled"
    again = client.post(f"/jobs/{job_id}/cancel", headers=html)
    assert again.status_code == 409


@pytest.mark.parametrize(
    ("document", "status"),
    [
        ({}, 422),
        ({"set_id": "none", "model_id": "none"}, 404),
        ({"set_id": "starter", "model_id": "none"}, 404),
        ({"set_id": "starter", "model_id": "none", "recipe": "none"}, 404),
        ({"set_id": "starter", "model_id": "none", "kind": "bake"}, 422),
    ],
)
def test_a_job_that_cannot_work_is_refused(client: TestClient, document: dict, status: int) -> None:
    refused = client.post("/jobs", json=document)
    assert refused.status_code == status
    assert refused.json()["error"].endswith(".")
    assert client.get("/jobs").json()["total"] == 0


@pytest.mark.parametrize(
    ("group", "sentence"),
    [
        ({"targets": [".*nothing$"]}, "whose modules are named like"),
        ({"targets": [".*_proj$"], "group_size": 24}, "does not divide the"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_on_the_page(
    client: TestClient, html: dict, tmp_path: Path, group: dict, sentence: str
) -> None:
    directory = write_model(tmp_path / "tiny")
    model = client.post("/models", json={"path": str(directory)}).json()["model"]["id"]
    text = json.dumps({"name": "odd", "groups": [{"name": "g", **group}], "ignore": []})
    assert client.post("/recipes", json={"name": "odd", "text": text}).status_code == 201
    form = {"set_id": "starter", "model_id": model, "recipe": "odd"}
    refused = client.post("/jobs", data=form, headers=html)
    assert refused.status_code == 422
    assert sentence in refused.text
    assert client.get("/jobs").json()["total"] == 0


def test_a_job_that_succeeded_is_not_retried(filled, html: dict) -> None:
    job_id = filled.seeded.jobs["succeeded"]
    assert filled.client.post(f"/jobs/{job_id}/retry", headers=html).status_code == 409


def read_stream(settings: Settings, job_id: str, life: float) -> list[tuple[str | None, str]]:
    """Every event of a job's stream: its name and its text."""

    async def read() -> list[tuple[str | None, str]]:
        events = live.fragments(settings, job_id, life_seconds=life)
        return [(event.event, event.raw_data or "") async for event in events]

    return asyncio.run(read())


def test_the_stream_of_an_ended_job_sends_it_once_and_closes(filled) -> None:
    events = read_stream(filled.settings, filled.seeded.jobs["failed"], life=30)
    assert [name for name, _ in events] == [None, "close"]
    assert "no room left" in events[0][1]


def test_the_stream_of_a_live_job_ends_after_its_life_without_closing(filled) -> None:
    events = read_stream(filled.settings, filled.seeded.jobs["running"], life=1.6)
    assert [name for name, _ in events] == [None]


def test_a_change_is_sent_and_the_end_closes(
    session: Session, settings: Settings, tmp_path: Path
) -> None:
    from app.base_models.service import add_model
    from app.calibration.service import save_set
    from tests.seed import queued_job

    model = add_model(session, write_model(tmp_path / "tiny"))
    job = queued_job(session, settings, save_set(session, small_spec()), model)

    async def watch() -> list[str | None]:
        seen: list[str | None] = []
        async for event in live.fragments(settings, job.id, life_seconds=30):
            seen.append(event.event)
            if len(seen) == 1:
                service.move(session, job.id, to=JobState.CANCELLED, out_of=[JobState.QUEUED])
        return seen

    assert asyncio.run(watch()) == [None, None, "close"]


def test_the_stream_over_http(filled) -> None:
    job_id = filled.seeded.jobs["failed"]
    answer = filled.client.get(f"/jobs/{job_id}/events", headers={"accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "content-encoding" not in answer.headers
    assert "event: close" in answer.text

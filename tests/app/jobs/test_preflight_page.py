"""A preflight job's page: what the main job would do, and the one click that starts it."""

from __future__ import annotations

import pytest
from sqlmodel import Session

from app.base_models.models import BaseModelRecord
from app.calibration.models import CalibrationSet
from app.database import session_for, utc_now
from app.jobs import service
from app.jobs.preflight import Preflight, TargetMatches
from app.jobs.spec import JobResult
from app.jobs.states import JobKind, JobState
from app.settings import Settings


def looked_at(session: Session, settings: Settings, found: Preflight) -> str:
    """A preflight job that has ended with some findings."""
    saved = session.get_one(CalibrationSet, service.list_jobs(session)[0].set_id)
    model = session.get_one(BaseModelRecord, service.list_jobs(session)[0].model_id)
    job = service.compose_job(
        session, settings, kind=JobKind.PREFLIGHT, set_id=saved.id, model_id=model.id
    )
    session.add(job)
    session.commit()
    service.move(session, job.id, to=JobState.STARTING, out_of=[JobState.QUEUED])
    service.move(session, job.id, to=JobState.RUNNING, out_of=[JobState.STARTING])
    result = JobResult(preflight=found).model_dump(mode="json")
    ended = {"finished_at": utc_now(), "result": result}
    service.move(session, job.id, to=JobState.SUCCEEDED, out_of=[JobState.RUNNING], **ended)
    return job.id


@pytest.mark.parametrize("ok", [True, False])
def test_what_it_would_do_and_the_click_that_starts_it(filled, html: dict, ok: bool) -> None:
    found = Preflight(
        ok=ok,
        errors=[] if ok else ["The pattern ^none$ matches no module."],
        targets=[TargetMatches(pattern=".*experts.*", group="experts", matches=1_536)],
        quantized_modules=1_536,
        mappings=518,
        mappings_by_kind={"model.layers.*.post_attention_layernorm": 6},
        router_safe=True,
        disk_bytes=7 * 10**9,
        tokens=59_550,
        seconds=41.0,
    )
    with session_for(filled.settings) as session:
        job_id = looked_at(session, filled.settings, found)
        job = service.get_job(session, job_id)
        spec = job.spec
    assert spec["held_out"] is None
    assert spec["recipe"]["name"] == job.recipe
    page = filled.client.get(f"/jobs/{job_id}", headers=html).text
    assert ("can run" in page, "cannot run" in page) == (ok, not ok)
    assert "1,536" in page
    assert "518 mappings" in page
    assert ('id="start"' in page) is ok
    assert all(sentence in page for sentence in found.errors)
    assert "model.layers.*.post_attention_layernorm" in page


def test_a_preflight_is_asked_for_from_the_sets_page(filled, html: dict) -> None:
    page = filled.client.get(f"/sets/{filled.seeded.set_id}", headers=html).text
    assert 'name="kind" value="preflight"' in " ".join(page.split())

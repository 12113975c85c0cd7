from __future__ import annotations

import json
from pathlib import Path

from alembic import command
from sqlalchemy import text

from app.calibration.service import get_set, spec_of
from app.database import alembic_config, engine_for, migrate, session_for, url_of
from app.jobs.service import get_job
from app.jobs.spec import JobSpec
from app.settings import Settings

OLD = {
    "name": "old",
    "slices": [{"name": "all", "weight": 1.0, "facets": {"domain": ["law"]}, "balance": None}],
    "token_budget": 1000,
    "max_length": 512,
    "seed": 3,
    "packs": ["permissive", "copyleft"],
    "split": "calibration",
}
JOB = {
    "job_id": "j",
    "kind": "quantize",
    "directory": "/d",
    "sets_dir": "/s",
    "model": "/m",
    "calibration": OLD,
    "held_out": {**OLD, "split": "held_out"},
}


def test_sets_and_jobs_of_an_older_installation_are_read(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    url = url_of(settings)
    command.upgrade(alembic_config(url), "0003")
    with engine_for(url).begin() as connection:
        connection.execute(
            text(
                "INSERT INTO calibration_set (id, name, spec, created_at) "
                "VALUES ('s', 'old', :spec, '2026-01-01')"
            ),
            {"spec": json.dumps(OLD)},
        )
        connection.execute(
            text("INSERT INTO base_model VALUES ('m', 'm', '/m', 'f', '{}', '2026-01-01')")
        )
        connection.execute(
            text(
                "INSERT INTO job (id, kind, name, state, set_id, model_id, spec, created_at) "
                "VALUES ('j', 'quantize', 'j', 'failed', 's', 'm', :spec, '2026-01-01')"
            ),
            {"spec": json.dumps(JOB)},
        )
    migrate(settings)
    with session_for(settings) as session:
        spec = spec_of(get_set(session, "s"))
        job = JobSpec.model_validate(get_job(session, "j").spec)
    assert spec.sources == ("permissive", "copyleft")
    assert spec.slices[0].weight == 1
    assert job.calibration == spec
    assert job.held_out == spec.model_copy(update={"split": "held_out"})

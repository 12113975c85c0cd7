"""Two who retry a job at the same moment, on either database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any

import pytest
from sqlmodel import select

from app.base_models.service import add_model
from app.calibration.service import save_set
from app.database import migrate, session_for
from app.errors import BrokerGone, Conflict
from app.jobs import retrying, service
from app.jobs.models import Job
from app.settings import Settings
from tests.seed import queued_job, small_spec
from tests.seeded_model import write_model


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    made = Settings(data_dir=tmp_path / "data", database_url=url, assets="local")
    migrate(made)
    return made


def test_of_two_at_once_one_is_refused(
    database: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with session_for(database) as session:
        model = add_model(session, write_model(tmp_path / "tiny"))
        job_id = queued_job(session, database, save_set(session, small_spec()), model).id
        service.cancel(session, job_id)
    both_have_looked = Barrier(2)

    def submit_when_both_may(*arguments: Any) -> Job:
        with suppress(BrokenBarrierError):  # One waits for the other, who gets no further.
            both_have_looked.wait(timeout=2)
        return service.submit(*arguments)

    monkeypatch.setattr(retrying, "submit", submit_when_both_may)

    def ask(_: int) -> type[Exception]:
        with session_for(database) as session:
            with pytest.raises((BrokerGone, Conflict)) as refused:
                retrying.retry(session, database, job_id)
            return refused.type

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(ask, range(2)))
    assert sorted(each.__name__ for each in found) == ["BrokerGone", "Conflict"]
    with session_for(database) as session:
        assert len(session.exec(select(Job).where(Job.retry_of == job_id)).all()) == 1

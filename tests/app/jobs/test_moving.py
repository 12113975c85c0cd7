from __future__ import annotations

from pathlib import Path

from sqlmodel import select

from app.checkpoints.models import Checkpoint
from app.checkpoints.service import file_of
from app.database import session_for
from app.jobs.models import Job
from app.jobs.moving import follow_data_dir, moved
from app.settings import Settings
from tests.seed import seed


def test_jobs_and_checkpoints_follow_a_data_directory_that_was_moved(
    settings: Settings, tmp_path: Path
) -> None:
    seed(settings)
    elsewhere = Settings(data_dir=tmp_path / "elsewhere", assets="local")
    with session_for(settings) as session:
        checkpoint = session.exec(select(Checkpoint)).first()
        assert checkpoint is not None
        old, name = checkpoint.path, str(checkpoint.files[0]["name"])
        checkpoint_id = checkpoint.id
        assert follow_data_dir(session, settings) == 0
    settings.data_dir.rename(elsewhere.data_dir)
    with session_for(elsewhere) as session:
        assert follow_data_dir(session, elsewhere) > 0
        checkpoint = session.get_one(Checkpoint, checkpoint_id)
        assert file_of(checkpoint, name)[0].is_file()
        job = session.get_one(Job, checkpoint_id)
        assert job.result is not None
        assert job.result["checkpoint"] == checkpoint.path != old
        assert job.spec["directory"] == str(elsewhere.jobs_dir.resolve() / job.id)
        assert follow_data_dir(session, elsewhere) == 0


def test_only_what_lies_inside_moves() -> None:
    document = {"a": ["/old/x", "/older/x", 1, None], "b": {"c": "/old"}}
    assert moved(document, Path("/old"), Path("/new")) == {
        "a": ["/new/x", "/older/x", 1, None],
        "b": {"c": "/old"},
    }

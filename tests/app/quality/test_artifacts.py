from __future__ import annotations

import shutil

import pytest

from app.comparison.views import comparison_of_directories
from app.jobs import files
from app.quality.artifacts import ArtifactRefused
from tests.app.conftest import Filled


@pytest.mark.parametrize(
    ("name", "page"),
    [
        (files.LAYERS, "errors"),
        (files.MODULES, "errors/modules"),
        (files.MODULES, "sensitivity"),
        (files.EVALUATION, "errors"),
    ],
)
def test_a_damaged_file_is_named(filled: Filled, html: dict, name: str, page: str) -> None:
    job_id = filled.seeded.jobs["succeeded"]
    path = filled.settings.jobs_dir / job_id / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    try:
        document = filled.client.get(f"/jobs/{job_id}/{page}")
        shown = filled.client.get(f"/jobs/{job_id}/{page}", headers=html)
    finally:
        path.write_bytes(whole)
    assert (document.status_code, shown.status_code) == (422, 422)
    assert document.json()["error"].startswith(f"{path} is damaged (")
    assert "run its job again" in shown.text
    assert filled.client.get(f"/jobs/{job_id}/{page}").status_code == 200


def test_the_command_line_names_it_too(filled: Filled, tmp_path) -> None:
    whole = filled.settings.jobs_dir / filled.seeded.jobs["succeeded"]
    for name in ("a", "b"):
        shutil.copytree(whole, tmp_path / name)
    (tmp_path / "b" / files.EVALUATION).write_text("{")
    with pytest.raises(ArtifactRefused, match=r"evaluation\.json is damaged"):
        comparison_of_directories([tmp_path / "a", tmp_path / "b"])

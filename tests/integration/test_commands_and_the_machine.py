"""``calibrant`` where the machine is not as it should be: places that cannot be written, a database
that does not answer, a locale without UTF-8, several commands at once."""

from __future__ import annotations

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.server import calibrant

NAME = "Rückschau – 日本"


@pytest.fixture
def composition(tmp_path: Path) -> Path:
    file = tmp_path / "set.yaml"
    file.write_text(f"name: {NAME}\nslices: [{{name: code, tokens: 100}}]\n", encoding="utf-8")
    return file


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path, composition: Path) -> None:
    said = calibrant(tmp_path / "data", "sets", "export", str(composition), "--out",
                     str(composition / "set.yaml"))  # fmt: skip
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.splitlines()[-1] == f"{composition} cannot be read or written: File exists."
    assert "Traceback" not in said.stderr


def test_a_data_directory_that_is_a_file_is_a_sentence(composition: Path) -> None:
    said = calibrant(composition, "sets", "list")
    assert said.returncode == 2
    assert said.stderr == f"{composition} cannot be read or written: File exists.\n"


def test_a_database_that_does_not_answer_is_a_sentence(tmp_path: Path) -> None:
    url = "postgresql://someone:s3cret@127.0.0.1:1/calibrant"
    said = calibrant(tmp_path, "sets", "list", DATABASE_URL=url)
    assert said.returncode == 1
    assert said.stderr.startswith("The database cannot be used (")
    assert len(said.stderr.splitlines()) == 1
    assert "s3cret" not in said.stderr


def test_a_database_that_is_damaged_or_newer_is_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "calibrant.sqlite3"
    file.write_bytes(b"no database" * 1000)
    damaged = calibrant(tmp_path, "sets", "list")
    assert damaged.returncode == 1
    assert damaged.stderr.startswith("The database cannot be used (file is not a database)")
    assert len(damaged.stderr.splitlines()) == 1
    file.unlink()
    with closing(sqlite3.connect(file)) as later:
        later.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        later.execute("INSERT INTO alembic_version VALUES ('0099')")
        later.commit()
    newer = calibrant(tmp_path, "sets", "list")
    assert newer.returncode == 2
    assert "is of a newer version of Calibrant" in newer.stderr
    assert len(newer.stderr.splitlines()) == 1


def test_what_is_no_database_is_refused_by_the_name_it_was_given(tmp_path: Path) -> None:
    said = calibrant(tmp_path, "sets", "list", DATABASE_URL="mysql://db/c")
    assert said.returncode == 2
    assert said.stderr.startswith("DATABASE_URL: give one like postgresql://")


def test_a_locale_without_utf8_changes_no_document(tmp_path: Path, composition: Path) -> None:
    said = calibrant(tmp_path / "data", "sets", "import", str(composition), "--json",
                     PYTHONIOENCODING="ascii")  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["name"] == NAME
    shown = calibrant(tmp_path / "data", "sets", "list", PYTHONIOENCODING="latin-1")
    assert NAME in shown.stdout


def test_commands_that_begin_a_data_directory_together_all_succeed(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as several:
        said = list(several.map(lambda _: calibrant(tmp_path / "new", "sets", "list"), range(4)))
    assert [one.returncode for one in said] == [0] * 4, [one.stderr for one in said]

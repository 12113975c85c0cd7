from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from app.artifacts import DRAFT, FORGOTTEN_SECONDS, new_directory, new_file
from app.errors import DiskFull


def fail_half_way(place: Path) -> None:
    with new_directory(place) as draft:
        (draft / "rows").write_text("half")
        raise KeyError


def test_a_directory_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "sets" / "abc"
    with pytest.raises(KeyError):
        fail_half_way(place)
    assert list(place.parent.iterdir()) == []
    with new_directory(place) as draft:
        assert not place.exists()
        (draft / "rows").write_text("whole")
    assert (place / "rows").read_text() == "whole"
    assert [entry.name for entry in place.parent.iterdir()] == ["abc"]


def test_the_first_of_two_writers_stays(tmp_path: Path) -> None:
    place = tmp_path / "abc"
    with new_directory(place) as slow:
        (slow / "rows").write_text("slow")
        with new_directory(place) as quick:
            (quick / "rows").write_text("quick")
    assert (place / "rows").read_text() == "quick"
    assert [entry.name for entry in tmp_path.iterdir()] == ["abc"]


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    place = tmp_path / "index" / "a.parquet"
    with new_file(place) as draft:
        draft.write_text("one")
    with pytest.raises(PermissionError), new_file(place):
        raise PermissionError
    assert place.read_text() == "one"
    assert [entry.name for entry in place.parent.iterdir()] == ["a.parquet"]


@pytest.mark.parametrize("make", [new_directory, new_file])
def test_what_killed_processes_left_goes_a_day_later(
    tmp_path: Path, make: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    killed, alive = tmp_path / f"{DRAFT}killed", tmp_path / f"{DRAFT}alive"
    file, mine = tmp_path / f"{DRAFT}file.parquet", tmp_path / ".draft-mine"
    for one in (killed, alive):
        one.mkdir()
        (one / "rows.parquet").write_text("half")
    file.write_text("half")
    mine.write_text("whole")
    old = time.time() - FORGOTTEN_SECONDS - 1
    for one in (killed / "rows.parquet", killed, alive, file, mine):
        os.utime(one, (old, old))  # the rows of the living one are written to still
    with make(tmp_path / "abc") as draft:
        assert {each.name for each in tmp_path.iterdir()} == {draft.name, alive.name, mine.name}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence(tmp_path: Path, code: int) -> None:
    for make in (new_directory, new_file):
        sentence = f"no room left on the disk of {tmp_path}"
        with pytest.raises(DiskFull, match=sentence), make(tmp_path / "abc"):
            raise OSError(code, "stands in for a disk that is full")
        assert list(tmp_path.iterdir()) == []


def test_another_failure_of_the_disk_is_itself(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), new_directory(tmp_path / "abc"):
        raise PermissionError(errno.EACCES, "no")

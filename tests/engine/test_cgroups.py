"""A container's limit is the memory there is."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from workers.engine import device
from workers.engine.cgroups import memory_limit

GB = 10**9
UNLIMITED = str((1 << 63) - 4096)


def limit_of(folder: Path, own: str, said: dict[str, str]) -> int | None:
    for name, text in said.items():
        file = folder / "mount" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n", encoding="ascii")
    (folder / "own").write_text(own, encoding="ascii")
    return memory_limit(folder / "mount", folder / "own")


def test_version_2_says_it_in_memory_max(tmp_path: Path) -> None:
    assert limit_of(tmp_path, "0::/pod/job\n", {"pod/job/memory.max": str(64 * GB)}) == 64 * GB


def test_a_group_above_limits_too(tmp_path: Path) -> None:
    said = {"pod/job/memory.max": "max", "pod/memory.max": str(32 * GB)}
    assert limit_of(tmp_path, "0::/pod/job\n", said) == 32 * GB


def test_a_container_sees_its_group_at_the_top(tmp_path: Path) -> None:
    assert limit_of(tmp_path, "0::/outside/name\n", {"memory.max": str(16 * GB)}) == 16 * GB


def test_version_1_says_it_in_its_own_file(tmp_path: Path) -> None:
    own = "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n"
    said = {"memory/docker/abc/memory.limit_in_bytes": str(8 * GB)}
    assert limit_of(tmp_path, own, said) == 8 * GB


@pytest.mark.parametrize("own", ["0::/\n", "4:memory:/\n", ""])
def test_without_a_limit_there_is_none(tmp_path: Path, own: str) -> None:
    assert limit_of(tmp_path, own, {"memory.max": "max"}) is None
    assert memory_limit(tmp_path / "nowhere", tmp_path / "no file") is None


def test_the_room_is_the_lesser_of_limit_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    total = psutil.virtual_memory().total
    for limit, expected in ((1 * GB, 1 * GB), (int(UNLIMITED), total), (None, total)):
        monkeypatch.setattr(device, "memory_limit", lambda limit=limit: limit)
        assert device.room().ram == expected

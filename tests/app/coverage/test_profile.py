from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from app.coverage.profile import FACET_COLUMNS, Profile, ProfileRefused
from app.errors import NotFound
from tests.app.coverage.profiles import COUNTS, ROWS, dense, small


def saved(profile: Profile, file: Path) -> Path:
    with file.open("wb") as stream:
        profile.save(stream)
    return file


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    profile = small()
    loaded = Profile.load(saved(profile, tmp_path / "coverage.npz"))
    for name in ("counts", "mass", "layers", "row_ids", "tokens"):
        assert np.array_equal(getattr(loaded, name), getattr(profile, name))
    assert loaded.top_k == 2
    assert list(loaded.facets) == list(FACET_COLUMNS)
    assert loaded.column("domain").tolist() == [row["domain"] for row in ROWS]


def test_counts_and_mass_stay_in_their_file(tmp_path: Path) -> None:
    loaded = Profile.load(saved(small(), tmp_path / "coverage.npz"))
    assert isinstance(loaded.counts, np.memmap)
    assert isinstance(loaded.mass, np.memmap)
    code = loaded.where("domain", "code").where("programming_language", "Go")
    assert (code.counts is loaded.counts, code.mass is loaded.mass) == (True, True)
    assert code.row_counts.tolist() == COUNTS[1:2]
    assert code.layer_mass.tolist() == (np.array(COUNTS[1]) / 2).tolist()
    assert code.fed(0, 3).tolist() == [4]
    again = Profile.load(saved(code, tmp_path / "part.npz"))
    assert (again.counts.tolist(), again.row_ids.tolist()) == (COUNTS[1:2], ["b"])


def test_a_packed_file_is_read(tmp_path: Path) -> None:
    with np.load(saved(small(), tmp_path / "coverage.npz")) as arrays:
        np.savez_compressed(tmp_path / "packed.npz", **arrays)
    assert Profile.load(tmp_path / "packed.npz").counts.tolist() == COUNTS


def test_sums_over_rows() -> None:
    profile = small()
    assert profile.layer_counts.tolist() == [[10, 10, 5, 7], [17, 15, 0, 0]]
    assert profile.total_tokens == 16
    assert profile.layer_counts.sum(axis=1).tolist() == [16 * 2, 16 * 2]
    assert profile.layer_mass[0].tolist() == [5.0, 5.0, 2.5, 3.5]


def test_rows_of_some_values() -> None:
    code = small().where("domain", "code")
    assert code.row_ids.tolist() == ["a", "b"]
    assert code.layer_counts.tolist() == [[9, 5, 0, 6], [10, 10, 0, 0]]
    assert small().where("programming_language", "Go", "Rust").row_ids.tolist() == ["a", "b"]


def test_counts_by_value_leave_rows_without_one_out() -> None:
    values, counts = small().counts_by("programming_language")
    assert values == ["Go", "Rust"]
    assert counts[:, 0].tolist() == [[4, 0, 0, 4], [5, 5, 0, 2]]


def test_a_value_that_no_row_has_is_refused() -> None:
    with pytest.raises(ProfileRefused, match="No row of the set has he as its spoken language"):
        small().where("spoken_language", "he")


def test_an_unknown_column_is_refused_with_those_there_are() -> None:
    with pytest.raises(ProfileRefused, match="no column 'colour'; it has spoken_language"):
        small().column("colour")


def test_a_dense_model_has_no_layers(tmp_path: Path) -> None:
    loaded = Profile.load(saved(dense(), tmp_path / "coverage.npz"))
    assert loaded.layer_counts.shape == (0, 0)
    assert loaded.experts == 0


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="There is no coverage"):
        Profile.load(tmp_path / "coverage.npz")


def as_npz(**arrays: object) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=True, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an archive",
        as_npz(counts=np.zeros((1, 1, 1))),
        as_npz(counts=np.array([{"a": 1}], dtype=object)),
        as_npz(
            counts=np.zeros((2, 1, 4)),
            mass=np.zeros((2, 1, 4)),
            layers=[0],
            row_ids=["a"],
            tokens=[1],
            top_k=1,
        ),
    ],
    ids=["empty", "text", "keys missing", "pickled", "shapes"],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "coverage.npz"
    file.write_bytes(content)
    with pytest.raises(ProfileRefused):
        Profile.load(file)

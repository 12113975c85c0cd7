from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.base_models.safetensors_headers import INDEX, read_weights
from app.errors import ModelRefused
from tests.app.base_models.checkpoints import write_safetensors

SHAPES = {"a.weight": (3, 5), "b.bias": (7,), "scalar": ()}


def test_names_shapes_and_types(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", SHAPES, "F32")
    weights = read_weights(tmp_path)
    assert {name: one.shape for name, one in weights.tensors.items()} == SHAPES
    assert [one.elements for one in weights.tensors.values()] == [15, 7, 1]
    assert {one.dtype for one in weights.tensors.values()} == {"F32"}


def test_the_header_is_that_of_the_library(tmp_path: Path) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    write_safetensors(tmp_path / "model.safetensors", SHAPES, "F32")
    loaded = numpy.load_file(tmp_path / "model.safetensors")
    assert {name: array.shape for name, array in loaded.items()} == SHAPES


def test_shards_are_those_of_the_index(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "1.safetensors", {"a": (2,)})
    write_safetensors(tmp_path / "2.safetensors", {"b": (3,)})
    write_safetensors(tmp_path / "stray.safetensors", {"c": (4,)})
    index = {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    (tmp_path / INDEX).write_text(json.dumps(index))
    assert set(read_weights(tmp_path).tensors) == {"a", "b"}
    (tmp_path / "2.safetensors").unlink()
    with pytest.raises(ModelRefused, match=r"lacks 1 of the 2 files .* 2\.safetensors"):
        read_weights(tmp_path)


@pytest.mark.parametrize("content", ["{", "{}", '{"weight_map": 1}', "[]"])
def test_a_damaged_index_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(ModelRefused, match="is not an index"):
        read_weights(tmp_path)


def test_an_index_does_not_lead_outside(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "x.safetensors", {"a": (2,)})
    model = tmp_path / "model"
    model.mkdir()
    (model / INDEX).write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
    with pytest.raises(ModelRefused, match="outside the model's directory"):
        read_weights(model)


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(ModelRefused, match="only safetensors are read"):
        read_weights(tmp_path)


def test_no_weights_are_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="has no weights"):
        read_weights(tmp_path)


def test_a_file_cut_short_in_its_data_names_the_tensor(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write_safetensors(file, {"a": (100,), "b": (100,)})
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(ModelRefused, match="is cut short: b ends 30 bytes after its end"):
        read_weights(tmp_path)


HEADER = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"abc",
        (10**6).to_bytes(8, "little") + b"{}",
        (2**63).to_bytes(8, "little") + b"{}",
        (3).to_bytes(8, "little") + b"{x}",
        (2).to_bytes(8, "little") + b"[]",
        (10).to_bytes(8, "little") + b'{"a": 1}  ',
        (4).to_bytes(8, "little") + b"\xff\xff\xff\xff",
        len(HEADER).to_bytes(8, "little") + HEADER.replace(b"[0,4]", b"[0]  "),
        len(HEADER).to_bytes(8, "little") + HEADER.replace(b"[1]", b'"1"'),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelRefused, match=r"model\.safetensors (is cut short|has a damaged)"):
        read_weights(tmp_path)

"""Names, shapes and types of a model's tensors from its safetensors headers; no weight is read.

The format: eight bytes with the length of the header (little-endian), the header as JSON, the
data (https://github.com/huggingface/safetensors, README, "Format").
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import ModelRefused

INDEX = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000  # the library's own limit
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class Tensor:
    """One tensor as its header gives it. ``dtype`` as safetensors writes it: ``BF16``, ``F32``;
    ``size_bytes`` is what its values take in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Weights:
    """All tensors of a model, the size of its files in bytes, and a hash of the headers."""

    tensors: dict[str, Tensor]
    size_bytes: int
    headers_sha256: str


def read_weights(directory: Path) -> Weights:
    """The tensors of a model directory.

    Raises ModelRefused when there are no safetensors, a shard that the index names is missing,
    or a file is cut short.
    """
    files = _files(directory)
    tensors: dict[str, Tensor] = {}
    digest = hashlib.sha256()
    for file in files:
        header = _read_header(file)
        digest.update(file.name.encode() + b"\0" + header + b"\0")
        for tensor in _tensors(file, header):
            tensors[tensor.name] = tensor
    size = sum(file.stat().st_size for file in files)
    return Weights(tensors, size, digest.hexdigest())


def _files(directory: Path) -> list[Path]:
    index = directory / INDEX
    if index.is_file():
        return _shards(directory, index)
    files = sorted(directory.glob("*.safetensors"))
    if files:
        return files
    if any(next(directory.glob(pattern), None) for pattern in PICKLES):
        raise ModelRefused(
            f"{directory} has its weights in pickle files, which can run code when they are "
            "opened: only safetensors are read. Convert it with save_pretrained first."
        )
    raise ModelRefused(f"{directory} has no weights: no .safetensors file is in it.")


def _shards(directory: Path, index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelRefused(f"{index} is not an index of safetensors: {error!r}.") from error
    inside = [name for name in names if isinstance(name, str) and Path(name).name == name]
    if len(inside) < len(names):
        raise ModelRefused(f"{index} names files outside the model's directory.")
    missing = [name for name in inside if not (directory / name).is_file()]
    if missing:
        raise ModelRefused(
            f"{directory} lacks {len(missing)} of the {len(names)} files its index names, the "
            f"first of them {missing[0]}: download it again."
        )
    return [directory / name for name in inside]


def _read_header(file: Path) -> bytes:
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
            raise ModelRefused(
                f"{file} is cut short or no safetensors file: its header cannot be read."
            )
        return stream.read(length)


def _tensors(file: Path, header: bytes) -> Iterator[Tensor]:
    data_bytes = file.stat().st_size - 8 - len(header)
    try:
        entries: dict[str, Any] = json.loads(header)
        entries.pop("__metadata__", None)
        for name, entry in entries.items():
            begin, end = entry["data_offsets"]
            if end > data_bytes:
                raise ModelRefused(
                    f"{file} is cut short: {name} ends {end - data_bytes:,} "
                    "bytes after its end. Download it again."
                )
            shape = tuple(int(size) for size in entry["shape"])
            yield Tensor(name, str(entry["dtype"]), shape, end - begin)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ModelRefused(f"{file} has a damaged header: {error!r}.") from error

"""The safetensors files of a model directory: which tensors they hold, where, and whether whole.

Headers are read by hand, because the library refuses a truncated file without saying which
tensors are lost. Format: https://github.com/huggingface/safetensors#format (an 8-byte little
endian length, a JSON header of that length, then the tensors' bytes).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from app.errors import CalibrantError, ModelRefused

INDEX = "model.safetensors.index.json"
LENGTH_BYTES = 8
LONGEST_HEADER = 500_000_000

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as its file's header describes it; ``whole`` is False when the file ends before
    the tensor does."""

    file: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    whole: bool

    @property
    def size_bytes(self) -> int:
        """How many bytes its values take."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class Shards:
    """All safetensors files of a directory.

    ``tensors`` maps each name to where it is; ``unreadable`` maps a file whose header cannot be
    read to the reason. Raises ``refused`` (ModelRefused unless told otherwise) when the directory
    has no such file or when an index names a file that is missing.
    """

    def __init__(self, directory: Path, refused: type[CalibrantError] = ModelRefused) -> None:
        self.directory = directory
        self.refused = refused
        self.weight_map: dict[str, str] = {}
        self.files = self._files()
        self._twice: list[str] = []
        self.tensors: dict[str, StoredTensor] = {}
        self.unreadable: dict[str, str] = {}
        for name in self.files:
            self._read(name)

    def _files(self) -> list[str]:
        index = self.directory / INDEX
        if index.is_file():
            try:
                self.weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
                names = sorted(set(self.weight_map.values()))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise self.refused(f"{index} cannot be read: {error!r}.") from error
        else:
            names = sorted(file.name for file in self.directory.glob("*.safetensors"))
        if not names:
            raise self.refused(f"{self.directory} has no .safetensors file.")
        for name in names:
            if not (self.directory / name).is_file():
                raise self.refused(
                    f"{INDEX} names {name}, which is not in {self.directory}: fetch the file."
                )
        return names

    def _read(self, name: str) -> None:
        try:
            header = read_header(self.directory / name)
            self._twice.extend(header.keys() & self.tensors.keys())
            self.tensors.update(header)
        except ValueError as error:
            self.unreadable[name] = str(error)

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor, on the CPU, in its own dtype."""
        stored = self.tensors[name]
        with safe_open(self.directory / stored.file, framework="pt") as file:
            return file.get_tensor(name)  # type: ignore[no-any-return]

    def names_in(self, file: str) -> list[str]:
        """The tensors of one file, in the order of its header."""
        return [name for name, stored in self.tensors.items() if stored.file == file]

    def misplaced(self) -> Iterator[tuple[str, str]]:
        """The tensors that a reader may find elsewhere, or not at all, and why: those in two files,
        those the index says are in a file that has them not, and those it does not name."""
        for name in self._twice:
            yield name, "It is in more than one file."
        for name, file in self.weight_map.items():
            there = self.tensors.get(name)
            if file not in self.unreadable and (there is None or there.file != file):
                yield name, f"{INDEX} says that it is in {file}, and it is not."
        unnamed = (name for name in self.tensors if name not in self.weight_map)
        for name in unnamed if self.weight_map else ():
            yield name, f"{INDEX} does not name it."

    def refuse_broken(self) -> None:
        """Raise ``refused`` for a file that cannot be read or ends early, and for the first of the
        ``misplaced``."""
        for name, reason in self.unreadable.items():
            raise self.refused(f"{self.directory / name} cannot be read: {reason}.")
        for name, stored in self.tensors.items():
            if not stored.whole:
                raise self.refused(
                    f"{self.directory / stored.file} ends before its tensor {name} does: fetch "
                    "the file again."
                )
        for name, reason in self.misplaced():
            raise self.refused(
                f"{name} of {self.directory} is not where it should be. {reason} Fetch the index "
                "and the files of one revision, and remove what does not belong to the model."
            )

    @property
    def size_bytes(self) -> int:
        """The size of all files together."""
        return sum((self.directory / name).stat().st_size for name in self.files)


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors a safetensors file should hold. Raises ValueError when it is none."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(LENGTH_BYTES)
        if len(start) < LENGTH_BYTES:
            raise ValueError("the file is shorter than a safetensors header")
        (length,) = struct.unpack("<Q", start)
        if length > min(size - LENGTH_BYTES, LONGEST_HEADER):
            raise ValueError("the file ends inside its header")
        header: Any = json.loads(stream.read(length))
    available = size - LENGTH_BYTES - length
    try:
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        found = {name: _stored(file.name, entry, available) for name, entry in entries.items()}
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError("its header is not one of safetensors") from error
    if end < available:
        raise ValueError(f"{available - end:,} bytes follow its last tensor")
    return found


def _stored(file: str, entry: dict[str, Any], available: int) -> StoredTensor:
    dtype = DTYPES.get(entry["dtype"])
    if dtype is None:
        raise ValueError(f"the dtype {entry['dtype']} is not known")
    whole = entry["data_offsets"][1] <= available
    return StoredTensor(file, dtype, tuple(entry["shape"]), whole)

"""Which rows of some sources say what an earlier one says: signatures kept beside the index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.artifacts import new_file
from app.calibration import duplicates
from app.sources.rows import RowsFile, iterate_rows


@dataclass(frozen=True, eq=False)
class SignatureFiles:
    """The signatures of an index's rows: those of ``files``, one after the other, at
    ``positions``. Made once for each revision of a source, since no tokenizer is in them."""

    files: tuple[RowsFile, ...]
    cache_dir: Path
    positions: NDArray[np.intp]

    def load(self) -> NDArray[np.uint32]:
        """uint32 ``[rows, duplicates.PERMUTATIONS]``. Raises DiskFull."""
        parts = [_load(file, self.cache_dir) for file in self.files]
        return np.concatenate(parts)[self.positions]


def first_of_each(signatures: NDArray[np.uint32], held_out: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which rows say something first: of every group of duplicates one is kept, the first in the
    order given, and no held-out row that the calibration part says too."""
    order = np.argsort(held_out, kind="stable")
    leaders = duplicates.groups(signatures[order])
    first = np.zeros(len(order), dtype=np.bool_)
    first[order] = leaders == np.arange(len(order))
    return first


def leader_of_each(row_ids: Sequence[str], texts: Sequence[str]) -> list[str | None]:
    """For each row the id of the first that says the same or nearly the same, None for the first
    itself and for a row like no other."""
    leaders = duplicates.groups(duplicates.signatures(texts))
    return [
        None if leader == at else row_ids[int(leader)] for at, leader in enumerate(leaders.tolist())
    ]


def _load(file: RowsFile, cache_dir: Path) -> NDArray[np.uint32]:
    name = f"{file.source} {file.revision} {duplicates.ALGORITHM}"
    place = cache_dir / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.signatures.npy"
    if not place.is_file():
        made = duplicates.signatures(_texts(file))
        with new_file(place) as draft, draft.open("wb") as stream:
            np.save(stream, made, allow_pickle=False)
    loaded: NDArray[np.uint32] = np.load(place, allow_pickle=False)
    return loaded


def _texts(file: RowsFile) -> Iterator[str]:
    for batch in iterate_rows(file, ["text"]):
        for row in batch:
            yield row["text"]

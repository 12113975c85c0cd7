"""Routing counts of a set on a model: every row × MoE layer × expert, as the engine wrote them."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_magic
from numpy.typing import NDArray

from app.errors import NotFound, Refused
from app.facets import Facet, label_of

# The columns a profile can be looked at by: the three facets, the source, the slice.
FACET_COLUMNS = ("spoken_language", "programming_language", "domain", "source", "slice")


# Numbers summed at once of arrays that may lie in a file.
BLOCK = 16_000_000
Number = TypeVar("Number", np.int64, np.float64)


class ProfileRefused(Refused):
    """A coverage file that cannot be read, or a question it cannot answer."""


@dataclass(frozen=True)
class Profile:
    """Routed tokens of each row in each MoE layer by expert, natural (unforced) routing.

    ``counts`` [rows, layers, experts] are tokens, ``mass`` the sum of the router's weights for
    them. A profile may look at some of their rows only: ``rows``, None for all. They are not
    copied, and in a profile that was loaded they stay in its file until they are asked for: of
    100,000 rows and 15,872 experts they are 10 GB. All else is of the rows looked at: ``row_ids``
    and ``tokens``, the length of each row. ``layers`` are decoder layer indices, ``top_k`` the
    experts a token is routed to. ``facets`` has a value a row by column, "" where it has none.
    ``activations`` [rows, hidden] is the mean of each row's last hidden states, ``together``
    [layers, experts, experts] the tokens routed to both of two experts, over all rows of the set
    whichever are looked at, ``model`` the fingerprint of the model that routed and ``set_id`` the
    set's id; None and "" in profiles that were taken without them.
    """

    counts: NDArray[np.unsignedinteger[Any]]
    mass: NDArray[np.float32]
    layers: NDArray[np.int64]
    row_ids: NDArray[np.str_]
    tokens: NDArray[np.int64]
    top_k: int
    facets: Mapping[str, NDArray[np.str_]]
    activations: NDArray[np.float32] | None = None
    model: str = ""
    together: NDArray[np.uint32] | None = None
    set_id: str = ""
    rows: NDArray[np.intp] | None = None

    def __post_init__(self) -> None:
        rows = len(self.row_ids)
        looked_at = len(self.counts) if self.rows is None else len(self.rows)
        per_row = [self.tokens, *self.facets.values()]
        vectors = [] if self.activations is None else [self.activations]
        fits = (
            self.counts.ndim == 3
            and self.counts.shape == self.mass.shape
            and (looked_at, self.counts.shape[1]) == (rows, len(self.layers))
            and all(array.shape == (rows,) for array in per_row)
            and all(array.ndim == 2 and len(array) == rows for array in vectors)
        )
        if not fits:
            raise ProfileRefused(
                f"The arrays of the coverage do not fit together: counts {self.counts.shape}, "
                f"mass {self.mass.shape}, {len(self.layers)} layers, {rows} rows."
            )

    @property
    def experts(self) -> int:
        """Experts in each layer; 0 for a dense model."""
        return int(self.counts.shape[2])

    @property
    def total_tokens(self) -> int:
        """Tokens of all rows."""
        return int(self.tokens.sum())

    @cached_property
    def layer_counts(self) -> NDArray[np.int64]:
        """Tokens routed to each expert over all rows, [layers, experts]."""
        return _sum(self.counts, self.rows, np.int64)

    @cached_property
    def layer_mass(self) -> NDArray[np.float64]:
        """Router weight that went to each expert over all rows, [layers, experts]."""
        return _sum(self.mass, self.rows, np.float64)

    @property
    def vectors(self) -> NDArray[np.float32]:
        """Where each row lies: the mean of its tokens' last hidden states, [rows, hidden], or,
        where the profile was taken without them, its router weight, [rows, layers × experts]."""
        if self.activations is not None:
            return self.activations
        mass = self.mass if self.rows is None else self.mass[self.rows]
        return mass.reshape(len(mass), -1)

    @property
    def row_counts(self) -> NDArray[np.unsignedinteger[Any]]:
        """Tokens of each row looked at, [rows, layers, experts]."""
        return self.counts if self.rows is None else self.counts[self.rows]

    def fed_by(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """Tokens routed to each expert by some rows, [layers, experts]."""
        return _sum(self.counts, self._places(rows), np.int64)

    def fed(self, place: int, expert: int) -> NDArray[np.int64]:
        """Tokens each row routes to an expert, ``place`` being its layer's, [rows]."""
        of_expert = self.counts[:, place, expert]
        return (of_expert if self.rows is None else of_expert[self.rows]).astype(np.int64)

    def column(self, name: str) -> NDArray[np.str_]:
        """The value of each row in one facet column. Raises ProfileRefused."""
        if name not in self.facets:
            known = ", ".join(self.facets) or "none"
            raise ProfileRefused(f"The coverage has no column {name!r}; it has {known}.")
        return self.facets[name]

    def values(self, name: str) -> list[str]:
        """The values some row has in a facet column, in the order of the alphabet."""
        return [str(value) for value in np.unique(self.column(name)) if value]

    def where(self, name: str, *values: str) -> Profile:
        """The rows that have one of some values. Raises ProfileRefused when none has."""
        keep = np.isin(self.column(name), values)
        if not keep.any():
            raise ProfileRefused(
                f"No row of the set has {' or '.join(values)} as its {name.replace('_', ' ')}."
            )
        return self.rows_where(keep)

    def counts_by(self, name: str) -> tuple[list[str], NDArray[np.int64]]:
        """Values of a column and the tokens of each, [values, layers, experts]; kept."""
        if name not in self._by:
            values = self.values(name)
            column = self.column(name)
            totals = np.zeros((len(values), len(self.layers), self.experts), dtype=np.int64)
            for number, value in enumerate(values):
                totals[number] = self.fed_by(np.flatnonzero(column == value))
            self._by[name] = values, totals
        return self._by[name]

    @cached_property
    def _by(self) -> dict[str, tuple[list[str], NDArray[np.int64]]]:
        return {}

    def only(self, rows: NDArray[np.intp]) -> Profile:
        """Some rows by their positions."""
        keep = np.zeros(len(self.row_ids), dtype=np.bool_)
        keep[rows] = True
        return self.rows_where(keep)

    def rows_where(self, keep: NDArray[np.bool_]) -> Profile:
        """The rows of a mask [rows]."""
        return Profile(
            counts=self.counts,
            mass=self.mass,
            layers=self.layers,
            row_ids=self.row_ids[keep],
            tokens=self.tokens[keep],
            top_k=self.top_k,
            facets={name: column[keep] for name, column in self.facets.items()},
            activations=None if self.activations is None else self.activations[keep],
            model=self.model,
            together=self.together,
            set_id=self.set_id,
            rows=self._places(np.flatnonzero(keep)),
        )

    def _places(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Where some of the rows looked at are in ``counts`` and ``mass``."""
        return rows if self.rows is None else self.rows[rows]

    @classmethod
    def load(cls, file: Path) -> Profile:
        """A profile from ``coverage.npz``.

        Raises NotFound when there is no such file, ProfileRefused when it is something else.
        """
        if not file.is_file():
            raise NotFound(f"There is no coverage in {file}: the profile step has not ended.")
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return cls(
                    counts=_unsigned(_in_file(file, arrays, "counts")),
                    mass=_in_file(file, arrays, "mass").astype(np.float32, copy=False),
                    layers=arrays["layers"].astype(np.int64, copy=False),
                    row_ids=arrays["row_ids"].astype(np.str_, copy=False),
                    tokens=arrays["tokens"].astype(np.int64, copy=False),
                    top_k=int(arrays["top_k"]),
                    facets={name: arrays[name] for name in FACET_COLUMNS if name in arrays},
                    activations=_vectors(arrays),
                    model=str(arrays["model"]) if "model" in arrays else "",
                    set_id=str(arrays["set"]) if "set" in arrays else "",
                    together=arrays.get("together"),
                )
        except (KeyError, TypeError, ValueError, zipfile.BadZipFile, EOFError) as error:
            raise ProfileRefused(f"{file} is not a coverage file: {error}.") from error

    def save(self, stream: IO[bytes]) -> None:
        """Write the arrays as :meth:`load` reads them (npz)."""
        arrays: dict[str, NDArray[Any]] = {
            "counts": self.row_counts,
            "mass": self.mass if self.rows is None else self.mass[self.rows],
            "layers": self.layers,
            "row_ids": self.row_ids,
            "tokens": self.tokens,
            "top_k": np.asarray(self.top_k),
            "model": np.asarray(self.model, dtype=np.str_),
            "set": np.asarray(self.set_id, dtype=np.str_),
            **self.facets,
        }
        if self.activations is not None:
            arrays["activations"] = self.activations.astype(np.float16)
        if self.together is not None:
            arrays["together"] = self.together
        np.savez(stream, allow_pickle=False, **arrays)


def label(column: str, value: str) -> str:
    """A facet value as a person reads it; sources and slices are their own names."""
    return label_of(Facet(column), value) if column in set(Facet) else value


def _sum(
    array: NDArray[Any], rows: NDArray[np.intp] | None, dtype: type[Number]
) -> NDArray[Number]:
    """The sum over some rows of an array [rows, layers, experts], a block of them at a time."""
    if rows is None:
        return cast("NDArray[Number]", array.sum(axis=0, dtype=dtype))
    total = np.zeros(array.shape[1:], dtype=dtype)
    step = max(1, BLOCK // max(1, total.size))
    for start in range(0, len(rows), step):
        total += array[rows[start : start + step]].sum(axis=0, dtype=dtype)
    return total


def _in_file(file: Path, arrays: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    """An array of an npz file, mapped from where it lies in it; one that is packed is read."""
    with zipfile.ZipFile(file) as archive, file.open("rb") as stream:
        entry = archive.getinfo(f"{name}.npy")
        # A local header of 30 bytes ends with the lengths of the name and of what follows it.
        stream.seek(entry.header_offset + 26)
        stream.seek(sum(struct.unpack("<HH", stream.read(4))), os.SEEK_CUR)
        if entry.compress_type == zipfile.ZIP_STORED and read_magic(stream) == (1, 0):
            shape, in_columns, dtype = read_array_header_1_0(stream)
            if not (in_columns or dtype.hasobject or 0 in shape):
                return np.memmap(file, dtype, mode="r", offset=stream.tell(), shape=shape)
    return arrays[name]


def _unsigned(counts: NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
    """Counts in the narrow type they were written in, or as uint32."""
    narrow = counts.dtype in (np.uint16, np.uint32)
    return counts if narrow else counts.astype(np.uint32)


def _vectors(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32] | None:
    return arrays["activations"].astype(np.float32) if "activations" in arrays else None

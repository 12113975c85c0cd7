"""Routing counts of a set on a model: every row × MoE layer × expert, as the engine wrote them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from app.errors import NotFound, Refused

# The columns a profile can be looked at by: the three facets, the source, the slice.
FACET_COLUMNS = ("spoken_language", "programming_language", "domain", "source", "slice")


class ProfileRefused(Refused):
    """A coverage file that cannot be read, or a question it cannot answer."""


@dataclass(frozen=True)
class Profile:
    """Routed tokens of each row in each MoE layer by expert, natural (unforced) routing.

    ``counts`` [rows, layers, experts] are tokens, ``mass`` the sum of the router's weights for
    them. ``layers`` are decoder layer indices, ``tokens`` the length of each row, ``top_k`` the
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

    def __post_init__(self) -> None:
        rows = len(self.row_ids)
        per_row = [self.tokens, *self.facets.values()]
        vectors = [] if self.activations is None else [self.activations]
        fits = (
            self.counts.ndim == 3
            and self.counts.shape == self.mass.shape
            and self.counts.shape[:2] == (rows, len(self.layers))
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
        return cast("NDArray[np.int64]", self.counts.sum(axis=0, dtype=np.int64))

    @cached_property
    def layer_mass(self) -> NDArray[np.float64]:
        """Router weight that went to each expert over all rows, [layers, experts]."""
        return cast("NDArray[np.float64]", self.mass.sum(axis=0, dtype=np.float64))

    @property
    def vectors(self) -> NDArray[np.float32]:
        """Where each row lies: the mean of its tokens' last hidden states, [rows, hidden], or,
        where the profile was taken without them, its router weight, [rows, layers × experts]."""
        if self.activations is not None:
            return self.activations
        return self.mass.reshape(len(self.mass), -1)

    def fed_by(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """Tokens routed to each expert by some rows, [layers, experts]."""
        return cast("NDArray[np.int64]", self.counts[rows].sum(axis=0, dtype=np.int64))

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
        """Values of a column and the tokens of each, [values, layers, experts]."""
        values = self.values(name)
        column = self.column(name)
        totals = np.zeros((len(values), len(self.layers), self.experts), dtype=np.int64)
        for number, value in enumerate(values):
            totals[number] = self.counts[column == value].sum(axis=0, dtype=np.int64)
        return values, totals

    def only(self, rows: NDArray[np.intp]) -> Profile:
        """Some rows by their positions."""
        keep = np.zeros(len(self.row_ids), dtype=np.bool_)
        keep[rows] = True
        return self.rows_where(keep)

    def rows_where(self, keep: NDArray[np.bool_]) -> Profile:
        """The rows of a mask [rows]."""
        return Profile(
            counts=self.counts[keep],
            mass=self.mass[keep],
            layers=self.layers,
            row_ids=self.row_ids[keep],
            tokens=self.tokens[keep],
            top_k=self.top_k,
            facets={name: column[keep] for name, column in self.facets.items()},
            activations=None if self.activations is None else self.activations[keep],
            model=self.model,
            together=self.together,
            set_id=self.set_id,
        )

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
                    counts=_unsigned(arrays["counts"]),
                    mass=arrays["mass"].astype(np.float32, copy=False),
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
            "counts": self.counts,
            "mass": self.mass,
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
        np.savez_compressed(stream, allow_pickle=False, **arrays)


def _unsigned(counts: NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
    """Counts in the narrow type they were written in, or as uint32."""
    narrow = counts.dtype in (np.uint16, np.uint32)
    return counts if narrow else counts.astype(np.uint32)


def _vectors(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32] | None:
    return arrays["activations"].astype(np.float32) if "activations" in arrays else None

"""What an evaluation keeps of every held-out row, so that no later question needs a second pass.

Everything is a sum over the row's tokens: a figure of any rows is a sum over sums, so a long row
weighs as much as its tokens, and two checkpoints are compared row by row.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from app.errors import NotFound, Refused
from app.facets import Facet

FACET_COLUMNS = ("spoken_language", "programming_language", "domain", "source", "slice")
SMALLEST_SLICE = 2


class RowsRefused(Refused):
    """A file of evaluated rows that cannot be read, or rows a question cannot be put to."""


@dataclass(frozen=True)
class EvaluatedRows:
    """Held-out rows, each array [rows] unless said otherwise.

    ``tokens`` are those with a next token in their row; over them ``kl`` (nats), the negative
    log-likelihoods ``loss_base`` and ``loss`` (nats) and ``same_top`` (tokens for which both
    models find the same next token likeliest) are summed. ``routed`` are all tokens of the row;
    of them ``router_same`` [rows, layers] have the same top-k experts in both models, and
    ``router_kl`` [rows, layers] is the KL of the router's probabilities (nats; NaN where a router
    gives no logits). ``layers`` are decoder layer indices, ``facets`` a value a row by column.
    """

    set_id: str
    row_ids: NDArray[np.str_]
    facets: Mapping[str, NDArray[np.str_]]
    tokens: NDArray[np.int64]
    kl: NDArray[np.float64]
    loss_base: NDArray[np.float64]
    loss: NDArray[np.float64]
    same_top: NDArray[np.int64]
    layers: NDArray[np.int64]
    routed: NDArray[np.int64]
    router_same: NDArray[np.int64]
    router_kl: NDArray[np.float64]

    @classmethod
    def empty(
        cls,
        set_id: str,
        row_ids: list[str],
        facets: Mapping[str, list[str]],
        layers: list[int],
    ) -> EvaluatedRows:
        """Nothing measured yet."""
        rows = len(row_ids)
        return cls(
            set_id=set_id,
            row_ids=np.array(row_ids, dtype=np.str_),
            facets={name: np.array(values, dtype=np.str_) for name, values in facets.items()},
            tokens=np.zeros(rows, dtype=np.int64),
            kl=np.zeros(rows),
            loss_base=np.zeros(rows),
            loss=np.zeros(rows),
            same_top=np.zeros(rows, dtype=np.int64),
            layers=np.array(layers, dtype=np.int64),
            routed=np.zeros(rows, dtype=np.int64),
            router_same=np.zeros((rows, len(layers)), dtype=np.int64),
            router_kl=np.zeros((rows, len(layers))),
        )

    def slices(self) -> Iterator[tuple[str, str, NDArray[np.intp]]]:
        """Facet, value and rows of every slice with two measured rows or more, in the facets'
        order and by value."""
        for facet in Facet:
            column = self.facets.get(facet.value)
            if column is None:
                continue
            for value in np.unique(column[self.tokens > 0]):
                rows = np.flatnonzero((column == value) & (self.tokens > 0))
                if value and len(rows) >= SMALLEST_SLICE:
                    yield facet.value, str(value), rows

    def take(self, rows: NDArray[np.intp]) -> EvaluatedRows:
        """Some of the rows, in this order."""
        return EvaluatedRows(
            set_id=self.set_id,
            facets={name: column[rows] for name, column in self.facets.items()},
            layers=self.layers,
            **{name: getattr(self, name)[rows] for name in _BY_ROW},
        )

    def save(self, stream: IO[bytes]) -> None:
        """Write the arrays as :meth:`load` reads them (npz)."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in (*_BY_ROW, "layers")}
        arrays |= {f"facet_{name}": column for name, column in self.facets.items()}
        np.savez_compressed(stream, set_id=np.array(self.set_id), allow_pickle=False, **arrays)

    @classmethod
    def load(cls, file: Path) -> EvaluatedRows:
        """The rows of an ``evaluation.npz``.

        Raises NotFound when there is no such file, RowsRefused when it is something else.
        """
        if not file.is_file():
            raise NotFound(f"There are no evaluated rows in {file}: run the evaluation again.")
        try:
            with np.load(file, allow_pickle=False) as arrays:
                facets = {n: arrays[f"facet_{n}"] for n in FACET_COLUMNS if f"facet_{n}" in arrays}
                found = {name: arrays[name] for name in (*_BY_ROW, "layers")}
                rows = cls(set_id=str(arrays["set_id"]), facets=facets, **found)
        except (KeyError, TypeError, ValueError, zipfile.BadZipFile, EOFError, OSError) as error:
            raise RowsRefused(f"{file} is not a file of evaluated rows: {error}.") from error
        lengths = {len(getattr(rows, name)) for name in _BY_ROW} | {len(c) for c in facets.values()}
        if len(lengths) != 1:
            raise RowsRefused(f"{file}: its arrays have different numbers of rows.")
        return rows


_BY_ROW = (
    "row_ids", "tokens", "kl", "loss_base", "loss", "same_top", "routed", "router_same",
    "router_kl",
)  # fmt: skip

"""The rows a composition can choose from, as columns: ids, token counts and facet codes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from app.calibration.spec import Slice
from app.facets import Facet

NO_VALUE = -1


@dataclass(frozen=True, slots=True)
class Candidate:
    """One row before it is chosen: its id, its length in tokens, its facets (None: none) and the
    name of its source."""

    row_id: str
    tokens: int
    spoken_language: str | None = None
    programming_language: str | None = None
    domain: str | None = None
    source: str = ""

    def value_of(self, facet: Facet) -> str | None:
        """The row's value of one facet."""
        value: str | None = getattr(self, facet.value)
        return value


@dataclass(frozen=True)
class FacetColumn:
    """The values of one facet over all rows: ``values[codes[i]]``, code -1 for none."""

    codes: NDArray[np.intp]  # numpy looks a table up three times as fast by its own index type
    values: tuple[str, ...]

    @classmethod
    def of(cls, values: Sequence[str | None]) -> FacetColumn:
        """A column from one value a row; codes follow the alphabet, not the order of the rows."""
        names = tuple(sorted({value for value in values if value is not None}))
        code = {name: number for number, name in enumerate(names)}
        codes = [NO_VALUE if value is None else code[value] for value in values]
        return cls(np.asarray(codes, dtype=np.intp), names)

    def take(self, rows: NDArray[np.intp]) -> FacetColumn:
        """The column of some of the rows, with the same vocabulary."""
        return FacetColumn(self.codes[rows], self.values)

    def present(self, rows: NDArray[np.intp]) -> list[str]:
        """The values that some of the rows have."""
        seen = np.bincount(self.codes[rows] + 1, minlength=len(self.values) + 1)[1:]
        return [value for value, count in zip(self.values, seen, strict=True) if count]

    def among(self, wanted: Iterable[str]) -> NDArray[np.bool_]:
        """Which rows have one of the wanted values."""
        listed = set(wanted)
        table = np.array([value in listed for value in self.values] + [False])
        return table[self.codes]  # code -1 reads the last entry, False

    def sums(self, amounts: NDArray[np.int64], rows: NDArray[np.intp]) -> dict[str, int]:
        """The sum of ``amounts`` (one for every row) over some of the rows, for every value."""
        slots = self.codes[rows] + 1  # the first slot is for rows without a value
        # float64 sums are exact below 2**53, far above any token count here
        totals = np.bincount(slots, amounts[rows], minlength=len(self.values) + 1)[1:]
        return {name: int(total) for name, total in zip(self.values, totals, strict=True)}


@dataclass(frozen=True)
class Pool:
    """Candidates as columns, each id once; sorted by it unless a method says otherwise.

    ``tokens`` is the length of each rendered row in tokens, already cut to the set's maximum;
    ``sources`` the source of each;
    ``hashes`` is :func:`row_hash` of each id; ``drawn_by`` is the seed whose order the rows are
    in, None where they are sorted by id. ``prompt_tokens`` is what the prompt of a slice, by its
    name, adds to a row at most, and ``max_length`` where it is cut then.
    """

    row_ids: NDArray[np.str_]
    hashes: NDArray[np.uint64]
    tokens: NDArray[np.int64]
    facets: Mapping[Facet, FacetColumn]
    sources: FacetColumn
    drawn_by: int | None = None
    prompt_tokens: Mapping[str, int] = field(default_factory=dict)
    max_length: int = 2**31 - 1

    @classmethod
    def of(cls, candidates: Iterable[Candidate]) -> Pool:
        """A pool from rows in any order. Of rows that share an id the first by value is kept."""
        unique: dict[str, Candidate] = {}
        for row in sorted(candidates, key=_sort_key):
            unique.setdefault(row.row_id, row)
        rows = list(unique.values())
        return cls(
            row_ids=np.array([row.row_id for row in rows], dtype=np.str_),
            hashes=row_hashes([row.row_id for row in rows]),
            tokens=np.array([row.tokens for row in rows], dtype=np.int64),
            facets={
                facet: FacetColumn.of([row.value_of(facet) for row in rows]) for facet in Facet
            },
            sources=FacetColumn.of([row.source for row in rows]),
        )

    def __len__(self) -> int:
        return len(self.tokens)

    def in_random_order(self, seed: int) -> Pool:
        """The same rows in the order in which a seed draws them."""
        if self.drawn_by == seed:
            return self
        if self.drawn_by is not None:
            raise ValueError("a pool is drawn once, from rows sorted by id")
        # rows are sorted by id, so a stable sort leaves nothing to chance where keys are equal
        order = np.argsort(sampling_keys(self.hashes, seed), kind="stable")
        return replace(self.take(order), drawn_by=seed)

    def take(self, rows: NDArray[np.intp]) -> Pool:
        """Some of the rows, in the order given."""
        return replace(
            self,
            row_ids=self.row_ids[rows],
            hashes=self.hashes[rows],
            tokens=self.tokens[rows],
            facets={facet: column.take(rows) for facet, column in self.facets.items()},
            sources=self.sources.take(rows),
        )

    def tokens_in(self, part: Slice) -> NDArray[np.int64]:
        """The length of every row as a slice has it, its prompt included."""
        if part.name not in self.prompt_tokens:
            return self.tokens
        return np.minimum(self.tokens + self.prompt_tokens[part.name], self.max_length)

    def matching(self, part: Slice) -> NDArray[np.bool_]:
        """Which rows a slice may take: of its sources and its row ids, with one of the listed
        values in every facet that lists any, and some value of the facet it balances (rows
        without one belong to no share)."""
        mask = np.ones(len(self), dtype=np.bool_)
        if part.sources:
            mask &= self.sources.among(part.sources)
        if part.row_ids:
            mask &= np.isin(self.row_ids, np.array(part.row_ids, dtype=np.str_))
        for facet, wanted in part.facets.items():
            if wanted:
                mask &= self.facets[facet].among(wanted)
        if part.balance is not None:
            mask &= self.facets[part.balance].codes != NO_VALUE
        return mask


def row_hash(row_id: str) -> int:
    """64 bits of the SHA-256 of a row id: the same in every process, unlike Python's ``hash``."""
    return int.from_bytes(hashlib.sha256(row_id.encode()).digest()[:8], "little")


def row_hashes(row_ids: Iterable[str]) -> NDArray[np.uint64]:
    """:func:`row_hash` of many ids."""
    return np.array([row_hash(row_id) for row_id in row_ids], dtype=np.uint64)


def sampling_keys(hashes: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """A random number for each row that depends on its id and the seed alone.

    Taking rows by ascending key is a random sample without replacement, and one that stays put:
    a row added to a source does not reshuffle the others, and no version of a random generator
    can change it. The mixing is SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable
    pseudorandom number generators").
    """
    start = _mix(np.array([seed], dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15))
    return _mix(hashes ^ start)


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return state ^ (state >> np.uint64(31))


def _sort_key(row: Candidate) -> tuple[str, int, tuple[str, ...]]:
    return row.row_id, row.tokens, tuple(row.value_of(facet) or "" for facet in Facet)

"""Rows that say the same: exactly, by a hash of the normalised text, and nearly, by MinHash.

A text is normalised by Unicode NFKC, case folding, and one space for every run of white space; two
texts that agree after that are exact duplicates. Near duplicates are found on shingles of five
neighbouring characters, so that languages written without spaces are treated as all others.

The signature of a text is its MinHash (Broder 1997, "On the resemblance and containment of
documents"): the share of equal entries of two signatures estimates the Jaccard similarity of their
shingles with a standard error of at most 0.046. Pairs to compare come from locality-sensitive
hashing in bands (Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", 3.4). Shingles are
hashed here, so that a signature depends on the text and on nothing of the process or the machine.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import rensa
from numpy.typing import NDArray

SHINGLE = 5
PERMUTATIONS = 120
# 20 bands of 6: a pair of similarity 0.8 is compared with probability 0.998, one of 0.5 with 0.27.
BANDS = 20
THRESHOLD = 0.8
# A change of anything above, of how shingles are hashed or of what of a row is compared
# (app.calibration.duplicate_rows) gives other signatures.
ALGORITHM = "minhash-2"

_SEED = 42
_BATCH_CHARACTERS = 1_000_000
# Above it a bucket is parted by more bands; then a row is compared to so many neighbours at most.
_BUCKET = 256

Pairs = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]


def normalised(text: str) -> str:
    """The text as duplicates are compared: NFKC, case folded, white space as single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def fingerprint(text: str) -> str:
    """32 hex digits of the SHA-256 of the normalised text: equal for exact duplicates."""
    return hashlib.sha256(_bytes(normalised(text), "utf-8")).hexdigest()[:32]


def signatures(texts: Iterable[str]) -> NDArray[np.uint32]:
    """The MinHash signature of every text: uint32 ``[texts, PERMUTATIONS]``.

    A text shorter than a shingle is one shingle of its own; texts that are empty after
    normalisation are equal to each other. The texts are read once, a million characters at a time.
    """
    parts = [_sketch(batch) for batch in _batches(texts)]
    return np.concatenate([np.empty((0, PERMUTATIONS), dtype=np.uint32), *parts])


def similarity(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> NDArray[np.float64]:
    """The estimated Jaccard similarity of signatures, entry by entry of the leading axes."""
    return np.asarray((one == other).mean(axis=-1), dtype=np.float64)


def groups(rows: NDArray[np.uint32]) -> NDArray[np.intp]:
    """The leader of every row: the first row of its group, itself where it is like no other.

    ``rows`` is ``[rows, PERMUTATIONS]``. Two rows are in one group when their estimated similarity
    is at least ``THRESHOLD``, or a chain of such pairs joins them; so the groups do not depend on
    the order of the rows, only which of a group's rows is called its leader does.
    """
    unique, first, inverse = _unique(rows)
    labels = np.arange(len(unique))
    for left, right, _ in _similar(unique):
        labels = _joined(labels, left, right)
    leaders = np.full(len(unique), len(rows), dtype=np.intp)
    np.minimum.at(leaders, labels, first)
    return leaders[labels[inverse]]


@dataclass(frozen=True, slots=True)
class Leak:
    """A held-out row and the calibration row most similar to it, by their positions."""

    held_out: int
    calibration: int
    similarity: float


def leaks(calibration: NDArray[np.uint32], held_out: NDArray[np.uint32]) -> list[Leak]:
    """The held-out rows that the calibration part says too, each with the row most like it.

    Both are signatures ``[rows, PERMUTATIONS]``. Of equally similar rows the first is named.
    """
    unique, _, inverse = _unique(np.concatenate([calibration, held_out]))
    taught, asked = inverse[: len(calibration)], inverse[len(calibration) :]
    nowhere = len(calibration)
    first = np.full(len(unique), nowhere, dtype=np.intp)
    np.minimum.at(first, taught, np.arange(len(calibration)))
    best_row = first.copy()
    best = np.where(first < nowhere, 1.0, 0.0)
    wanted = np.zeros(len(unique), dtype=np.bool_)
    wanted[asked] = True
    for left, right, alike in _similar(unique):
        for one, other in ((left, right), (right, left)):
            # the last write of an index stays: the most similar one, and of equal ones the first
            order = np.lexsort((-first[other], alike))
            one, other, score = one[order], other[order], alike[order]
            better = wanted[one] & (first[other] < nowhere)
            better &= (score > best[one]) | ((score == best[one]) & (first[other] < best_row[one]))
            best_row[one[better]] = first[other[better]]
            best[one[better]] = score[better]
    return [
        Leak(row, int(best_row[place]), float(best[place]))
        for row, place in enumerate(asked)
        if best_row[place] < nowhere
    ]


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(normalised(text))
        characters += len(batch[-1])
        if characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _sketch(texts: Sequence[str]) -> NDArray[np.uint32]:
    hashes, offsets = _shingles(texts)
    sketch = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        hashes, offsets, PERMUTATIONS, _SEED
    )
    return np.array(sketch.to_rows(), dtype=np.uint32)


def _shingles(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The hash of every shingle of some normalised texts, one text after the other, and where each
    text's begin and end."""
    padded = [text.ljust(SHINGLE, "\0") for text in texts]
    points = np.frombuffer(_bytes("".join(padded), "utf-32-le"), dtype="<u4").astype(np.uint64)
    lengths = np.array([len(text) for text in padded])
    count = len(points) - SHINGLE + 1
    hashes = np.zeros(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for place in range(SHINGLE):
            hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + points[place : place + count]
        # the finalizer of MurmurHash3 (Appleby), since neighbouring characters are close numbers
        hashes = (hashes ^ (hashes >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
        hashes = (hashes ^ (hashes >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
        hashes ^= hashes >> np.uint64(33)
    ends = np.repeat(np.cumsum(lengths), lengths)[:count]
    inside = np.arange(count) + SHINGLE <= ends
    offsets = np.concatenate([[0], np.cumsum(lengths - SHINGLE + 1)]).astype(np.uint64)
    return hashes[inside], offsets


def _unique(
    rows: NDArray[np.uint32],
) -> tuple[NDArray[np.uint32], NDArray[np.intp], NDArray[np.intp]]:
    """The different signatures in an order of their own, the first row of each, each row's place
    among them."""
    keys = _keys(rows)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return rows[first], first, inverse.reshape(-1)


def _keys(columns: NDArray[np.uint32]) -> NDArray[np.void]:
    """Each row as one value that sorts and compares by its bytes."""
    table = np.ascontiguousarray(columns)
    return table.view(np.dtype((np.void, table.itemsize * table.shape[1]))).reshape(-1)


def _similar(unique: NDArray[np.uint32]) -> Iterator[Pairs]:
    """Pairs of different signatures whose estimated similarity reaches ``THRESHOLD``, and that
    similarity. A pair comes once for every band that finds it."""
    for band in range(BANDS):
        order, bucket = _buckets(unique, band)
        for distance in range(1, _BUCKET):
            near = np.flatnonzero(bucket[:-distance] == bucket[distance:])
            if not len(near):
                break
            left, right = order[near], order[near + distance]
            alike = similarity(unique[left], unique[right])
            good = alike >= THRESHOLD
            yield left[good], right[good], alike[good]


def _buckets(unique: NDArray[np.uint32], band: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Signatures in the order of their buckets, those alone in theirs left out, and each one's
    bucket.

    Rows that share a long text, such as a system prompt, agree in a band without being duplicates:
    a bucket that grows too large is parted by the next bands as well.
    """
    codes = np.zeros(len(unique), dtype=np.intp)
    crowded = np.arange(len(unique))
    width = PERMUTATIONS // BANDS
    for bands in (1, 2, 4):
        columns = (np.arange(bands * width) + band * width) % PERMUTATIONS
        _, parts = np.unique(_keys(unique[crowded][:, columns]), return_inverse=True)
        codes[crowded] = parts.reshape(-1) + codes.max(initial=0) + 1
        sizes = np.bincount(codes)[codes]
        crowded = np.flatnonzero(sizes > _BUCKET)
        if not len(crowded):
            break
    order = np.argsort(codes, kind="stable")
    order = order[sizes[order] > 1]
    return order, codes[order]


def _joined(
    labels: NDArray[np.intp], left: NDArray[np.intp], right: NDArray[np.intp]
) -> NDArray[np.intp]:
    """The labels after joining pairs: of each connected component the smallest one."""
    while True:
        one, other = labels[left], labels[right]
        apart = one != other
        if not apart.any():
            return labels
        low, high = np.minimum(one[apart], other[apart]), np.maximum(one[apart], other[apart])
        parents = np.arange(len(labels))
        np.minimum.at(parents, high, low)
        while True:  # every label points below itself, so this ends at the roots
            further = parents[parents]
            if np.array_equal(further, parents):
                break
            parents = further
        labels = parents[labels]


def _bytes(text: str, encoding: str) -> bytes:
    return text.encode(encoding, errors="surrogatepass")

"""How long every row of the corpus is for one tokenizer and chat template, kept on disk.

A page that shows live totals reads this index and never a data set. One Parquet file a pack,
named by the hash of all it depends on: the pack's bytes, the template, the tokenizer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from app.artifacts import new_file
from app.calibration.chat_template import RowRefused
from app.calibration.pool import FacetColumn, Pool, row_hashes
from app.calibration.rendering import Rendered, Renderer
from app.calibration.spec import SetSpec, Slice
from app.errors import CompositionRefused
from app.facets import Facet
from app.sources.rows import messages_of
from app.sources.starter_corpus import load_rows, pack_file

Progress = Callable[[int, int], None]

FORMAT = 1
BATCH_ROWS = 256
# The index holds whole lengths: a set of any maximum length is cut from them.
UNCUT = 2**31 - 1

_SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("split", pa.string()),
        ("tokens", pa.int32()),  # 0 where the row could not be rendered
        ("reason", pa.string()),
        *((facet.value, pa.string()) for facet in Facet),
    ]
)


@dataclass(frozen=True)
class RefusedRow:
    """A row the template refuses, with the reason."""

    row_id: str
    pack: str
    split: str
    reason: str
    facets: Mapping[Facet, str | None]

    def wanted_by(self, spec: SetSpec) -> bool:
        """Whether a composition could have chosen the row."""
        here = self.pack in spec.packs and self.split == spec.split
        return here and any(self._matches(part) for part in spec.slices)

    def _matches(self, part: Slice) -> bool:
        listed = all(not vs or self.facets[facet] in vs for facet, vs in part.facets.items())
        return listed and (part.balance is None or self.facets[part.balance] is not None)


@dataclass(frozen=True, eq=False)
class CorpusIndex:
    """The rows of some packs, sorted by id, with their whole length in tokens."""

    row_ids: NDArray[np.str_]
    hashes: NDArray[np.uint64]
    tokens: NDArray[np.int64]
    packs: FacetColumn
    splits: FacetColumn
    facets: dict[Facet, FacetColumn]
    refused: tuple[RefusedRow, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)

    def pool(self, spec: SetSpec) -> Pool:
        """The rows a composition may choose from: its packs, its split, cut to its length, in
        the order of its seed."""
        whole = _drawn(self, frozenset(spec.packs), spec.split, spec.seed)
        return replace(whole, tokens=np.minimum(whole.tokens, spec.max_length))


def open_index(packs: Iterable[str], tokenizer_dir: Path, cache_dir: Path) -> CorpusIndex:
    """The index of some packs for a model directory, kept in memory between calls.

    Made, which takes as long as tokenizing them, where ``cache_dir`` does not have it. The files
    it depends on are looked at, not read, so a page can ask at every key press.
    """
    packs = tuple(sorted(set(packs)))
    files = [pack_file(pack) for pack in packs]
    files += [tokenizer_dir / name for name in _TOKENIZER_FILES]
    return _opened(packs, tokenizer_dir, cache_dir, tuple(_stamp(file) for file in files))


def load_index(
    packs: Iterable[str], renderer: Renderer, cache_dir: Path, progress: Progress | None = None
) -> CorpusIndex:
    """The index of some packs from ``cache_dir``, made and kept where it is not there.

    ``progress`` is called with rows done and rows to do while it is being made. Raises DiskFull.
    """
    names = sorted(set(packs))
    files = {pack: cache_dir / f"{index_key(pack, renderer)}.parquet" for pack in names}
    missing = [pack for pack in names if not files[pack].is_file()]
    total = sum(pack_rows(pack) for pack in missing)
    done = 0
    for pack in missing:
        done = _write_index(pack, renderer, files[pack], done, total, progress)
    return _assemble({pack: pq.read_table(file) for pack, file in files.items()})


def index_key(pack: str, renderer: Renderer) -> str:
    """The name of a pack's index: a hash of all its lengths depend on."""
    parts = [FORMAT, pack_revision(pack), renderer.template.sha256, renderer.tokenizer.sha256]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def pack_revision(pack: str) -> str:
    """SHA-256 of a pack's Parquet file: the revision of this source."""
    file = pack_file(pack)
    if not file.is_file():
        raise CompositionRefused(f"The corpus has no pack {pack!r}: {file} is not there.")
    return _sha256(file, _stamp(file))


def pack_rows(pack: str) -> int:
    """Rows of a pack, both splits."""
    rows: int = pq.read_metadata(pack_file(pack)).num_rows
    return rows


def in_batches(rows: Sequence[Any], size: int = BATCH_ROWS) -> Iterable[Sequence[Any]]:
    """Neighbouring rows, ``size`` at a time."""
    return (rows[start : start + size] for start in range(0, len(rows), size))


_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


def _stamp(file: Path) -> tuple[int, int]:
    """When a file was last changed, and its size; zeros when it is not there."""
    if not file.is_file():
        return 0, 0
    status = file.stat()
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=64)
def _sha256(file: Path, stamp: tuple[int, int]) -> str:  # noqa: ARG001, the stamp is the key
    return hashlib.sha256(file.read_bytes()).hexdigest()


@lru_cache(maxsize=8)
def _drawn(index: CorpusIndex, packs: frozenset[str], split: str, seed: int) -> Pool:
    """The rows of some packs and a split, whole, in seeded order: kept, since a person who moves
    a weight changes none of these."""
    rows = np.flatnonzero(index.packs.among(packs) & index.splits.among([split]))
    pool = Pool(
        row_ids=index.row_ids[rows],
        hashes=index.hashes[rows],
        tokens=index.tokens[rows],
        facets={facet: column.take(rows) for facet, column in index.facets.items()},
    )
    return pool.in_random_order(seed)


@lru_cache(maxsize=8)
def _opened(
    packs: tuple[str, ...],
    tokenizer_dir: Path,
    cache_dir: Path,
    stamps: tuple[tuple[int, int], ...],  # noqa: ARG001, part of the key
) -> CorpusIndex:
    return load_index(packs, Renderer.of_model(tokenizer_dir, UNCUT), cache_dir)


def _write_index(
    pack: str, renderer: Renderer, file: Path, done: int, total: int, progress: Progress | None
) -> int:
    """Render every row of a pack and write its length; gives back the rows done so far."""
    with new_file(file) as draft, pq.ParquetWriter(draft, _SCHEMA, compression="zstd") as writer:
        for batch in in_batches(load_rows([pack], split=None)):
            results = renderer.render([messages_of(row) for row in batch])
            entries = [_entry(row, result) for row, result in zip(batch, results, strict=True)]
            writer.write_table(pa.Table.from_pylist(entries, schema=_SCHEMA))
            done += len(batch)
            if progress is not None:
                progress(done, total)
    return done


def _entry(row: dict[str, Any], result: Rendered | RowRefused) -> dict[str, Any]:
    return {
        "row_id": row["id"],
        "split": row["split"],
        "tokens": result.full_tokens if isinstance(result, Rendered) else 0,
        "reason": None if isinstance(result, Rendered) else result.sentence,
        **{facet.value: row[facet.value] for facet in Facet},
    }


def _assemble(tables: dict[str, pa.Table]) -> CorpusIndex:
    """One index of several packs; of rows with the same id the first pack's is kept."""
    table = pa.concat_tables(tables.values())
    pack_names = [pack for pack, part in tables.items() for _ in range(part.num_rows)]
    row_ids = table["row_id"].to_numpy(zero_copy_only=False).astype(np.str_)
    tokens = table["tokens"].to_numpy().astype(np.int64)
    _, first = np.unique(row_ids, return_index=True)
    good = first[tokens[first] > 0]
    return CorpusIndex(
        row_ids=row_ids[good],
        hashes=row_hashes(str(row_id) for row_id in row_ids[good]),
        tokens=tokens[good],
        packs=FacetColumn.of(pack_names).take(good),
        splits=FacetColumn.of(table["split"].to_pylist()).take(good),
        facets={
            facet: FacetColumn.of(table[facet.value].to_pylist()).take(good) for facet in Facet
        },
        refused=tuple(_refused(table, first[tokens[first] == 0], pack_names)),
    )


def _refused(
    table: pa.Table, positions: NDArray[np.intp], packs: Sequence[str]
) -> Iterator[RefusedRow]:
    for position, row in zip(positions, table.take(positions).to_pylist(), strict=True):
        yield RefusedRow(
            row_id=row["row_id"],
            pack=packs[position],
            split=row["split"],
            reason=row["reason"],
            facets={facet: row[facet.value] for facet in Facet},
        )

"""How long every row of a source is for one tokenizer and chat template, kept on disk.

A page that shows live totals reads this index and never a data set. One Parquet file a source,
named by the hash of all it depends on: the source's revision, the template, the tokenizer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel

from app.artifacts import new_file
from app.calibration.duplicate_rows import SignatureFiles, first_of_each
from app.calibration.pool import FacetColumn, Pool, row_hashes
from app.calibration.prompting import most_tokens
from app.calibration.spec import SetSpec, Slice
from app.facets import Facet
from app.rendering.chat_template import TEMPLATE_DATE, RowRefused
from app.rendering.conversation import Reasoning
from app.rendering.renderer import ALGORITHM as RENDERING
from app.rendering.renderer import Renderer
from app.rendering.tokenizer import ModelTokenizer
from app.sources.rows import RowsFile, iterate_rows, messages_of

Progress = Callable[[int, int], None]

FORMAT = 2

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
    source: str
    split: str
    reason: str
    facets: Mapping[Facet, str | None]

    def wanted_by(self, spec: SetSpec) -> bool:
        """Whether a composition could have chosen the row."""
        here = self.source in spec.sources and self.split == spec.split
        return here and any(self._matches(part) for part in spec.slices)

    def _matches(self, part: Slice) -> bool:
        listed = all(not vs or self.facets[facet] in vs for facet, vs in part.facets.items())
        listed &= not part.sources or self.source in part.sources
        listed &= not part.row_ids or self.row_id in part.row_ids
        return listed and (part.balance is None or self.facets[part.balance] is not None)


class LeftOut(BaseModel):
    """Rows that a composition's settings leave out: as duplicates of others, then as shorter than
    its minimum."""

    duplicates: int = 0
    too_short: int = 0


@dataclass(frozen=True, eq=False)
class CorpusIndex:
    """The rows of some sources, sorted by id, with their whole length in tokens: a set of any
    maximum length is cut from them. ``signatures`` finds duplicates among them, ``tokenizer``
    counts prompts; both are missing in an index of lengths alone."""

    row_ids: NDArray[np.str_]
    hashes: NDArray[np.uint64]
    tokens: NDArray[np.int64]
    sources: FacetColumn
    splits: FacetColumn
    facets: dict[Facet, FacetColumn]
    refused: tuple[RefusedRow, ...] = ()
    signatures: SignatureFiles | None = None
    tokenizer: ModelTokenizer | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def pool(self, spec: SetSpec) -> Pool:
        """The rows a composition may choose from: its sources, its split, none shorter than it
        asks, none twice where it drops duplicates, cut to its length, in the order of its seed."""
        drops = spec.duplicates == "drop"
        whole = _drawn(self, frozenset(spec.sources), spec.split, spec.seed, drops)
        if spec.min_tokens:
            whole = whole.take(np.flatnonzero(whole.tokens >= spec.min_tokens))
        prompts = {part.name: part.prompt for part in spec.slices if part.prompt is not None}
        return replace(
            whole,
            tokens=np.minimum(whole.tokens, spec.max_length),
            max_length=spec.max_length,
            prompt_tokens={
                name: most_tokens(prompt, self.tokenizer)
                for name, prompt in prompts.items()
                if self.tokenizer is not None
            },
        )

    def left_out(self, spec: SetSpec) -> LeftOut:
        """The rows of a composition's sources and split that its settings leave out."""
        sources = frozenset(spec.sources)
        every = _drawn(self, sources, spec.split, spec.seed, False)
        once = _drawn(self, sources, spec.split, spec.seed, spec.duplicates == "drop")
        return LeftOut(
            duplicates=len(every) - len(once),
            too_short=int((once.tokens < spec.min_tokens).sum()),
        )


def open_index(
    files: Sequence[RowsFile],
    tokenizer_dir: Path,
    cache_dir: Path,
    reasoning: Reasoning = "native",
) -> CorpusIndex:
    """The index of some sources for a model directory, kept in memory between calls.

    Made, which takes as long as tokenizing them, where ``cache_dir`` does not have it. The files
    it depends on are looked at, not read, so a page can ask at every key press.
    """
    stamps = tuple(_stamp(tokenizer_dir / name) for name in _TOKENIZER_FILES)
    in_order = tuple(sorted(files, key=_by_source))
    return _opened(in_order, tokenizer_dir, cache_dir, reasoning, stamps)


def load_index(
    files: Sequence[RowsFile],
    renderer: Renderer,
    cache_dir: Path,
    progress: Progress | None = None,
) -> CorpusIndex:
    """The index of some sources from ``cache_dir``, made and kept where it is not there.

    ``progress`` is called with rows done and rows to do while it is being made. Raises DiskFull.
    """
    files = sorted(files, key=_by_source)
    places = {file: cache_dir / f"{index_key(file, renderer)}.parquet" for file in files}
    missing = [file for file in files if not places[file].is_file()]
    total = sum(file.rows for file in missing)
    done = 0
    for file in missing:
        done = _write_index(file, renderer, places[file], done, total, progress)
    tables = {file: pq.read_table(place) for file, place in places.items()}
    return _assemble(tables, renderer.tokenizer, cache_dir)


def index_key(file: RowsFile, renderer: Renderer) -> str:
    """The name of a source's index: a hash of all its lengths depend on."""
    parts = [FORMAT, RENDERING, TEMPLATE_DATE.date().isoformat()]
    parts += [file.source, file.revision, renderer.reasoning]
    parts += [renderer.template.sha256, renderer.tokenizer.sha256]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


def _by_source(file: RowsFile) -> str:
    return file.source


def _stamp(file: Path) -> tuple[int, int]:
    """When a file was last changed, and its size; zeros when it is not there."""
    if not file.is_file():
        return 0, 0
    status = file.stat()
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=8)
def _drawn(
    index: CorpusIndex, sources: frozenset[str], split: str, seed: int, drops_duplicates: bool
) -> Pool:
    """The rows of some sources and a split, whole, in seeded order: kept, since a person who moves
    a weight changes none of these."""
    wanted = index.sources.among(sources) & index.splits.among([split])
    if drops_duplicates:
        wanted &= _first_of_each(index)
    rows = np.flatnonzero(wanted)
    pool = Pool(
        row_ids=index.row_ids[rows],
        hashes=index.hashes[rows],
        tokens=index.tokens[rows],
        facets={facet: column.take(rows) for facet, column in index.facets.items()},
        sources=index.sources.take(rows),
    )
    return pool.in_random_order(seed)


@lru_cache(maxsize=8)
def _first_of_each(index: CorpusIndex) -> NDArray[np.bool_]:
    if index.signatures is None:
        return np.ones(len(index), dtype=np.bool_)
    return first_of_each(index.signatures.load(), index.splits.among(["held_out"]))


@lru_cache(maxsize=8)
def _opened(
    files: tuple[RowsFile, ...],
    tokenizer_dir: Path,
    cache_dir: Path,
    reasoning: Reasoning,
    stamps: tuple[tuple[int, int], ...],  # noqa: ARG001, part of the key
) -> CorpusIndex:
    renderer = Renderer.of_model(tokenizer_dir, reasoning=reasoning)
    return load_index(files, renderer, cache_dir)


def _write_index(
    file: RowsFile,
    renderer: Renderer,
    place: Path,
    done: int,
    total: int,
    progress: Progress | None,
) -> int:
    """Render every row of a source and write its length; gives back the rows done so far."""
    with new_file(place) as draft, pq.ParquetWriter(draft, _SCHEMA, compression="zstd") as writer:
        for batch in iterate_rows(file):
            lengths = renderer.lengths([messages_of(row) for row in batch])
            entries = [_entry(row, length) for row, length in zip(batch, lengths, strict=True)]
            writer.write_table(pa.Table.from_pylist(entries, schema=_SCHEMA))
            done += len(batch)
            if progress is not None:
                progress(done, total)
    return done


def _entry(row: dict[str, Any], length: int | RowRefused) -> dict[str, Any]:
    return {
        "row_id": row["id"],
        "split": row["split"],
        "tokens": length if isinstance(length, int) else 0,
        "reason": None if isinstance(length, int) else length.sentence,
        **{facet.value: row[facet.value] for facet in Facet},
    }


def _assemble(
    tables: dict[RowsFile, pa.Table], tokenizer: ModelTokenizer, cache_dir: Path
) -> CorpusIndex:
    """One index of several packs; of rows with the same id the first source's is kept."""
    table = pa.concat_tables(tables.values())
    sources = [file.source for file, part in tables.items() for _ in range(part.num_rows)]
    row_ids = table["row_id"].to_numpy(zero_copy_only=False).astype(np.str_)
    tokens = table["tokens"].to_numpy().astype(np.int64)
    _, first = np.unique(row_ids, return_index=True)
    good = first[tokens[first] > 0]
    return CorpusIndex(
        row_ids=row_ids[good],
        hashes=row_hashes(str(row_id) for row_id in row_ids[good]),
        tokens=tokens[good],
        sources=FacetColumn.of(sources).take(good),
        splits=FacetColumn.of(table["split"].to_pylist()).take(good),
        facets={
            facet: FacetColumn.of(table[facet.value].to_pylist()).take(good) for facet in Facet
        },
        refused=tuple(_refused(table, first[tokens[first] == 0], sources)),
        signatures=SignatureFiles(tuple(tables), cache_dir, good),
        tokenizer=tokenizer,
    )


def _refused(
    table: pa.Table, positions: NDArray[np.intp], sources: Sequence[str]
) -> Iterator[RefusedRow]:
    for position, row in zip(positions, table.take(positions).to_pylist(), strict=True):
        yield RefusedRow(
            row_id=row["row_id"],
            source=sources[position],
            split=row["split"],
            reason=row["reason"],
            facets={facet: row[facet.value] for facet in Facet},
        )

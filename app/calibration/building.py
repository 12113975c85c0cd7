"""Building a set: compose, render, write. The same composition gives the same bytes anywhere."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from app.artifacts import new_directory, sync
from app.calibration.built_set import (
    MANIFEST,
    ROW_SCHEMA,
    ROWS,
    BuiltSet,
    FacetAmount,
    Report,
    SetAside,
    SliceReport,
    load_built_set,
    set_id,
)
from app.calibration.chat_template import TEMPLATE_DATE
from app.calibration.composition import ALGORITHM, Composition, compose
from app.calibration.index import CorpusIndex, load_index
from app.calibration.rendering import Rendered, Renderer
from app.calibration.spec import SetSpec
from app.calibration.totals import Shortfall
from app.errors import CompositionRefused
from app.facets import Facet
from app.sources.rows import BATCH_ROWS, RowsFile, load_rows, messages_of, rows_files

Progress = Callable[[int, int], None]

MANIFEST_FORMAT = 2
# Another version of one of these may give other text, other ids or other bytes.
PACKAGES = ("jinja2", "pyarrow", "tokenizers")


def build_set(
    spec: SetSpec,
    *,
    tokenizer_dir: Path,
    sets_dir: Path,
    progress: Progress | None = None,
    index_dir: Path | None = None,
    sources_dir: Path | None = None,
) -> BuiltSet:
    """Build a set for a model's tokenizer and chat template into ``sets_dir/<id>``.

    A set that is there already is given back as it is. ``progress`` gets rows done and rows to
    do, first of the index (kept in ``index_dir``), then of the set. ``index_dir`` and
    ``sources_dir``, where fetched sources are, lie beside ``sets_dir`` by default.

    Raises CompositionRefused, ModelRefused, DiskFull.
    """
    renderer = Renderer.of_model(tokenizer_dir, spec.max_length)
    files = rows_files(spec.sources, sources_dir or sets_dir.parent / "sources")
    index = load_index(files, renderer, index_dir or sets_dir.parent / "index", progress)
    composition = compose(spec, index.pool(spec))
    identity = _identity(spec, files, composition, renderer)
    directory = sets_dir / set_id(identity)
    if not (directory / MANIFEST).is_file():
        with new_directory(directory) as draft:
            batches = _rendered_rows(spec, files, composition, renderer)
            tally = _write_rows(draft / ROWS, batches, len(composition.rows), progress)
            report = _report(spec, composition, index, tally)
            _write_manifest(draft, identity, report)
    return load_built_set(directory)


def _identity(
    spec: SetSpec, files: Sequence[RowsFile], composition: Composition, renderer: Renderer
) -> dict[str, Any]:
    """All a set's bytes depend on; its hash is the set's name."""
    return {
        "format": MANIFEST_FORMAT,
        "algorithm": ALGORITHM,
        "spec": spec.model_dump(mode="json"),
        "seed": spec.seed,
        "sources": [{"name": file.source, "revision": file.revision} for file in files],
        "row_ids": composition.row_ids,
        "template_sha256": renderer.template.sha256,
        "template_date": TEMPLATE_DATE.date().isoformat(),
        "tokenizer_sha256": renderer.tokenizer.sha256,
        "packages": {name: version(name) for name in PACKAGES},
    }


def _write_rows(
    file: Path,
    batches: Iterator[list[dict[str, Any]]],
    total: int,
    progress: Progress | None,
) -> _Tally:
    tally = _Tally()
    with pq.ParquetWriter(file, ROW_SCHEMA, compression="zstd") as writer:
        for entries in batches:
            writer.write_table(pa.Table.from_pylist(entries, schema=ROW_SCHEMA))
            tally.add(entries)
            if progress is not None:
                progress(tally.rows, total)
    sync(file)
    return tally


def _rendered_rows(
    spec: SetSpec, files: Sequence[RowsFile], composition: Composition, renderer: Renderer
) -> Iterator[list[dict[str, Any]]]:
    """The set's rows in their order, a batch at a time, as the columns of ``rows.parquet``."""
    by_id = {row["id"]: row for row in load_rows(files, spec.split)}
    chosen = list(zip(composition.row_ids, composition.slice_names, strict=True))
    for start in range(0, len(chosen), BATCH_ROWS):
        batch = chosen[start : start + BATCH_ROWS]
        rows = [by_id[row_id] for row_id, _ in batch]
        results = renderer.render([messages_of(row) for row in rows])
        yield [
            _entry(row, part, result)
            for row, (_, part), result in zip(rows, batch, results, strict=True)
        ]


def _entry(row: Mapping[str, Any], part: str, result: object) -> dict[str, Any]:
    if not isinstance(result, Rendered):  # the index has rendered it with the same template
        raise CompositionRefused(f"Row {row['id']} cannot be rendered any more: {result}.")
    return {
        "row_id": row["id"],
        "source": row["source"],
        "slice": part,
        **{facet.value: row[facet.value] for facet in Facet},
        "license": row["license"],
        "text": result.text,
        "input_ids": result.input_ids,
        "fed_tokens": result.fed_tokens,
        "named_tokens": result.named_tokens,
        "full_tokens": result.full_tokens,
    }


class _Tally:
    """Sums over the rows as they are written."""

    def __init__(self) -> None:
        self.rows = 0
        self.tokens = 0
        self.full_tokens = 0
        self.facets: dict[Facet, dict[str, FacetAmount]] = {facet: {} for facet in Facet}

    def add(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Count a batch of rows."""
        for entry in entries:
            self.rows += 1
            self.tokens += len(entry["input_ids"])
            self.full_tokens += entry["full_tokens"]
            for facet in Facet:
                if entry[facet.value] is not None:
                    amount = self.facets[facet].setdefault(entry[facet.value], FacetAmount())
                    amount.rows += 1
                    amount.fed_tokens += entry["fed_tokens"]
                    amount.named_tokens += entry["named_tokens"]


def _report(spec: SetSpec, composition: Composition, index: CorpusIndex, tally: _Tally) -> Report:
    set_aside = [
        SetAside(source=row.source, row=row.row_id, reason=row.reason)
        for row in index.refused
        if row.wanted_by(spec)
    ]
    return Report(
        rows=tally.rows,
        tokens=tally.tokens,
        cut_tokens=tally.full_tokens - tally.tokens,
        facets={facet: dict(sorted(values.items())) for facet, values in tally.facets.items()},
        slices=[SliceReport.of(part) for part in composition.slices],
        set_aside=set_aside,
        shortfalls=[Shortfall.of(quota) for quota in composition.shortfalls],
        warnings=[*composition.warnings, *_set_aside_warning(set_aside)],
    )


def _set_aside_warning(set_aside: Sequence[SetAside]) -> Iterator[str]:
    if set_aside:
        reason, count = Counter(row.reason for row in set_aside).most_common(1)[0]
        yield (
            f"{len(set_aside):,} rows were set aside because they cannot be rendered; "
            f"{count:,} of them because {reason}."
        )


def _write_manifest(draft: Path, identity: dict[str, Any], report: Report) -> None:
    rows = (draft / ROWS).read_bytes()
    manifest = {
        "id": set_id(identity),
        "identity": identity,
        "report": report.model_dump(mode="json"),
        "files": {ROWS: {"sha256": hashlib.sha256(rows).hexdigest(), "size_bytes": len(rows)}},
    }
    file = draft / MANIFEST
    text = json.dumps(manifest, sort_keys=True, indent=2, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")
    sync(file)

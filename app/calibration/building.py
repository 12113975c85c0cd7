"""Building a set: compose, render, write. The same composition gives the same bytes anywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from app.artifacts import new_directory, sync
from app.calibration import duplicates
from app.calibration.built_set import (
    MANIFEST,
    MANIFEST_FORMAT,
    ROW_SCHEMA,
    ROWS,
    BuiltSet,
    Report,
    SetAside,
    load_built_set,
    set_id,
)
from app.calibration.composition import ALGORITHM, Composition, compose
from app.calibration.duplicate_rows import leader_of_each, said_by
from app.calibration.index import load_index
from app.calibration.prompting import Assigned, assign
from app.calibration.set_report import Tally, report_of
from app.calibration.spec import SetSpec
from app.errors import CompositionRefused
from app.facets import Facet
from app.rendering.chat_template import TEMPLATE_DATE, RowRefused
from app.rendering.renderer import ALGORITHM as RENDERING
from app.rendering.renderer import Rendered, Renderer
from app.sources.entry import SourceEntry
from app.sources.pinning import TellFetching, fetch_missing
from app.sources.rows import BATCH_ROWS, RowsFile, find_rows, messages_of, rows_files

Progress = Callable[[int, int], None]
Row = Mapping[str, Any]

_NO_ROOM = "with its prompt each is longer than what its slice or the set may take"

# Another version of one of these may give other text, other ids or other bytes.
PACKAGES = ("jinja2", "pyarrow", "rensa", "tokenizers")


@dataclass(frozen=True)
class Chosen:
    """The rows a set is made of, in their order: id, slice, and the prompt of those that have
    one; ``refused`` are rows the composition chose and a prompt made impossible."""

    row_ids: tuple[str, ...]
    slices: tuple[str, ...]
    prompts: Mapping[str, Assigned]
    refused: tuple[SetAside, ...] = ()


def build_set(
    spec: SetSpec,
    *,
    tokenizer_dir: Path,
    sets_dir: Path,
    progress: Progress | None = None,
    index_dir: Path | None = None,
    sources_dir: Path | None = None,
    revisions: Mapping[str, str] | None = None,
    entries: Sequence[SourceEntry] = (),
    fetching: TellFetching | None = None,
) -> BuiltSet:
    """Build a set for a model's tokenizer and chat template into ``sets_dir/<id>``.

    A set that is there already is given back as it is. ``progress`` gets rows done and rows to
    do, first of the index (kept in ``index_dir``), then of the set. ``index_dir`` and
    ``sources_dir``, where fetched sources are, lie beside ``sets_dir`` by default. ``revisions``
    pins sources by name; others are taken as they are now. Those of ``entries`` are fetched where
    their rows are not here, which ``fetching`` is told of.

    Raises CompositionRefused, ModelRefused, DiskFull.
    """
    renderer = Renderer.of_model(tokenizer_dir, spec.max_length, spec.truncation, spec.reasoning)
    sources_dir = sources_dir or sets_dir.parent / "sources"
    fetch_missing(entries, sources_dir, revisions, fetching)
    files = rows_files(spec.sources, sources_dir, revisions)
    index = load_index(files, renderer, index_dir or sets_dir.parent / "index", progress)
    composition = compose(spec, index.pool(spec))
    chosen = _chosen(spec, files, composition, renderer)
    _require_a_row(chosen)
    identity = _identity(spec, files, chosen, renderer)
    directory = sets_dir / set_id(identity)
    if not (directory / MANIFEST).is_file():
        with new_directory(directory) as draft:
            batches = _rendered_rows(spec, files, chosen, renderer)
            tally = _write_rows(draft / ROWS, batches, len(chosen.row_ids), progress)
            report = report_of(spec, composition, index, tally, chosen.refused)
            _write_manifest(draft, identity, report)
    return load_built_set(directory)


def _identity(
    spec: SetSpec, files: Sequence[RowsFile], chosen: Chosen, renderer: Renderer
) -> dict[str, Any]:
    """All a set's bytes depend on; its hash is the set's name."""
    return {
        "format": MANIFEST_FORMAT,
        "algorithm": ALGORITHM,
        "duplicates": duplicates.ALGORITHM,
        "rendering": RENDERING,
        "spec": spec.model_dump(mode="json"),
        "seed": spec.seed,
        "sources": [{"name": file.source, "revision": file.revision} for file in files],
        "row_ids": list(chosen.row_ids),
        "template_sha256": renderer.template.sha256,
        "template_date": TEMPLATE_DATE.date().isoformat(),
        "tokenizer_sha256": renderer.tokenizer.sha256,
        "packages": {name: version(name) for name in PACKAGES},
    }


def _chosen(
    spec: SetSpec, files: Sequence[RowsFile], composition: Composition, renderer: Renderer
) -> Chosen:
    """The composition's rows, without those that the template refuses with their prompt and those
    that, with it, would pass a budget."""
    row_ids = composition.row_ids
    prompts = assign(spec, row_ids, composition.slice_of_row.tolist())
    if not prompts:
        return Chosen(tuple(row_ids), tuple(composition.slice_names), prompts)
    left = _left_for_prompted(spec, composition, prompts)
    rows = find_rows(files, prompts)
    lengths = _prompted_lengths(rows, prompts, renderer)
    kept, refused = [], []
    for row_id, part in zip(row_ids, composition.slice_names, strict=True):
        length = lengths.get(row_id, 0)
        if isinstance(length, str):
            why = f"slice {part!r}: {length}"
            refused.append(SetAside(source=rows[row_id]["source"], row=row_id, reason=why))
        elif row_id not in prompts or _spend(left, part, min(length, spec.max_length)):
            kept.append((row_id, part))
    ids, names = zip(*kept, strict=True) if kept else ((), ())
    return Chosen(ids, names, prompts, tuple(refused))


def _require_a_row(chosen: Chosen) -> None:
    """Raises CompositionRefused when every row that the composition chose was refused."""
    if not chosen.row_ids:
        first = chosen.refused[0] if chosen.refused else None
        why = f"row {first.row} of {first.source!r}: {first.reason}" if first else _NO_ROOM
        raise CompositionRefused(f"No row of the set is left: {why}.")


def _spend(left: dict[str | None, int], part: str, tokens: int) -> bool:
    """Take a row's tokens from what its slice and the set have left, if both hold them."""
    limits = [key for key in (part, None) if key in left]
    if any(left[key] < tokens for key in limits):
        return False
    for key in limits:
        left[key] -= tokens
    return True


def _left_for_prompted(
    spec: SetSpec, composition: Composition, prompts: Mapping[str, Assigned]
) -> dict[str | None, int]:
    """The tokens that rows with a prompt may take: in each slice with a budget of its own, and
    (None) in the whole set."""
    left: dict[str | None, int] = {
        part.name: part.budget for part in composition.slices if part.budget is not None
    }
    if spec.token_budget is not None:
        plain = [row_id not in prompts for row_id in composition.row_ids]
        left[None] = spec.token_budget - int(composition.lengths[plain].sum())
    return left


def _prompted_lengths(
    rows: Mapping[str, Row], prompts: Mapping[str, Assigned], renderer: Renderer
) -> dict[str, int | str]:
    """The whole length of each row with its prompt, or why it cannot be rendered."""
    found: dict[str, int | str] = {}
    for batch in _in_batches(list(prompts)):
        talks = {}
        for row_id in batch:
            try:
                talks[row_id] = prompts[row_id].before(rows[row_id], messages_of(rows[row_id]))
            except RowRefused as refusal:
                found[row_id] = refusal.sentence
        for row_id, length in zip(talks, renderer.lengths(list(talks.values())), strict=True):
            found[row_id] = length if isinstance(length, int) else length.sentence
    return found


def _write_rows(
    file: Path,
    batches: Iterator[list[dict[str, Any]]],
    total: int,
    progress: Progress | None,
) -> Tally:
    tally = Tally()
    with pq.ParquetWriter(file, ROW_SCHEMA, compression="zstd") as writer:
        for entries in batches:
            writer.write_table(pa.Table.from_pylist(entries, schema=ROW_SCHEMA))
            tally.add(entries)
            if progress is not None:
                progress(tally.rows, total)
    sync(file)
    return tally


def _rendered_rows(
    spec: SetSpec, files: Sequence[RowsFile], chosen: Chosen, renderer: Renderer
) -> Iterator[list[dict[str, Any]]]:
    """The set's rows in their order, a batch at a time, as the columns of ``rows.parquet``."""
    by_id = find_rows(files, chosen.row_ids)
    said = [said_by(by_id[row_id]) for row_id in chosen.row_ids]
    leaders = leader_of_each(chosen.row_ids, said)
    packer = Packer(spec.max_length) if spec.packing else None
    pairs = list(zip(chosen.row_ids, chosen.slices, leaders, strict=True))
    for batch in _in_batches(pairs):
        rows = [by_id[row_id] for row_id, _, _ in batch]
        results = renderer.render([_conversation(row, chosen.prompts) for row in rows])
        entries = []
        for row, (row_id, part, leader), result in zip(rows, batch, results, strict=True):
            if not isinstance(result, Rendered):  # it was rendered with the same template before
                raise CompositionRefused(f"Row {row_id} cannot be rendered any more: {result}.")
            entry = _entry(row, part, result)
            entry |= _named(row, result, chosen.prompts.get(row_id), renderer)
            entry["duplicate_of"] = leader
            entry["sequence"] = packer.place(len(result.input_ids)) if packer else None
            entries.append(entry)
        yield entries


def _conversation(row: Row, prompts: Mapping[str, Assigned]) -> list[Mapping[str, Any]]:
    messages: list[Mapping[str, Any]] = [*messages_of(row)]
    assigned = prompts.get(row["id"])
    return assigned.before(row, messages) if assigned else messages


def _entry(row: Row, part: str, result: Rendered) -> dict[str, Any]:
    start, end = result.cut or (None, None)
    return {
        "row_id": row["id"],
        "source": row["source"],
        "slice": part,
        **{facet.value: row[facet.value] for facet in Facet},
        "license": row["license"],
        "text": result.text,
        "input_ids": result.input_ids,
        "fed_tokens": result.fed_tokens,
        "full_tokens": result.full_tokens,
        "turns": [asdict(turn) for turn in result.turns],
        "cut_start": start,
        "cut_end": end,
    }


def _named(
    row: Row, result: Rendered, assigned: Assigned | None, renderer: Renderer
) -> dict[str, Any]:
    """What a row's prompt names. Its content is named where it is not of that value itself."""
    if assigned is None:
        return {"named_facet": None, "named_value": None, "named_tokens": 0, "prompt_tokens": 0}
    facet, value = assigned.facet, assigned.value
    is_fed = facet is None or row[facet.value] == value
    [prompt_tokens] = renderer.tokenizer.count([assigned.words(row)])
    return {
        "named_facet": facet.value if facet else None,
        "named_value": value,
        "named_tokens": 0 if is_fed else result.fed_tokens,
        "prompt_tokens": prompt_tokens,
    }


@dataclass
class Packer:
    """Joins rows into sequences of at most ``max_length`` tokens, in their order."""

    max_length: int
    number: int = 0
    filled: int = 0

    def place(self, tokens: int) -> int:
        """The number of the sequence a row goes to, from 0."""
        if self.filled and self.filled + tokens > self.max_length:
            self.number, self.filled = self.number + 1, 0
        self.filled += tokens
        return self.number


def _in_batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[start : start + BATCH_ROWS] for start in range(0, len(items), BATCH_ROWS))


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

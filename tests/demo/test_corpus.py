"""The starter corpus as it is committed: its packs, its licences, its split."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from app.facets import DOMAINS, PROGRAMMING_LANGUAGES, SPOKEN_LANGUAGES
from app.sources.rows import messages_of
from app.sources.starter_corpus import (
    CORPUS_DIR,
    PACKS,
    load_rows,
    pack_file,
    split_of,
)

COLUMNS = [
    "id",
    "text",
    "spoken_language",
    "programming_language",
    "domain",
    "source",
    "path",
    "license",
    "split",
]
ROWS = {"permissive": 1862, "cc-by-sa": 1033, "copyleft": 1036}
ASKS_FOR_SOURCE = ("GPL-", "GFDL-", "MPL-", "EPL-")
REGISTRY = re.compile(r"://[^/\s]*(npm|pypi|debian)")


def rows_of(pack: str) -> list[dict[str, Any]]:
    return pq.read_table(pack_file(pack)).to_pylist()


def family(licence: str) -> str:
    if licence.startswith(ASKS_FOR_SOURCE):
        return "copyleft"
    return "cc-by-sa" if licence.startswith("CC-BY-SA-") else "permissive"


def texts_needed(expression: str, pack: str) -> set[str]:
    """The licences a row of the pack is given under there: `A OR B WITH C` read by hand."""
    choices = [choice for choice in expression.split(" OR ") if family(choice) == pack]
    return {identifier for choice in choices for identifier in choice.split(" WITH ")}


@pytest.mark.parametrize("pack", PACKS)
def test_pack_holds_its_rows_with_every_column(pack: str) -> None:
    table = pq.read_table(pack_file(pack))
    assert table.column_names == COLUMNS
    assert table.num_rows == ROWS[pack]
    for row in table.to_pylist():
        assert row["id"] == hashlib.sha1(row["text"].encode()).hexdigest()[:16]  # noqa: S324
        assert row["domain"] in DOMAINS
        assert (row["spoken_language"] is None) != (row["programming_language"] is None)
        assert row["spoken_language"] in {None, *SPOKEN_LANGUAGES}
        assert row["programming_language"] in {None, *PROGRAMMING_LANGUAGES}
        assert row["source"]
        assert row["path"]


@pytest.mark.parametrize("pack", PACKS)
def test_pack_is_compressed_with_zstd(pack: str) -> None:
    group = pq.ParquetFile(pack_file(pack)).metadata.row_group(0)
    assert {group.column(i).compression for i in range(group.num_columns)} == {"ZSTD"}


def test_no_row_is_in_two_packs() -> None:
    ids = [row["id"] for pack in PACKS for row in rows_of(pack)]
    assert len(set(ids)) == len(ids) == sum(ROWS.values())


@pytest.mark.parametrize("pack", PACKS)
def test_row_lies_in_the_pack_that_asks_least(pack: str) -> None:
    for row in rows_of(pack):
        families = {family(choice) for choice in row["license"].split(" OR ")}
        assert pack == next(name for name in PACKS if name in families), row["license"]


@pytest.mark.parametrize("pack", PACKS)
def test_every_licence_of_a_pack_has_its_text_and_no_other_is_there(pack: str) -> None:
    needed = set().union(*(texts_needed(row["license"], pack) for row in rows_of(pack)))
    texts = {file.stem: file for file in (CORPUS_DIR / pack / "LICENSES").iterdir()}
    assert set(texts) == needed
    for identifier, file in texts.items():
        assert len(file.read_text(encoding="utf-8")) > 400, identifier


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("copyleft/LICENSES/GPL-2.0-or-later.txt", "Version 2, June 1991"),
        ("copyleft/LICENSES/GPL-3.0-or-later.txt", "Version 3, 29 June 2007"),
        ("copyleft/LICENSES/GCC-exception-3.1.txt", "GCC RUNTIME LIBRARY EXCEPTION"),
        ("copyleft/LICENSES/GFDL-1.1-no-invariants-or-later.txt", "Version 1.1, March 2000"),
        ("cc-by-sa/LICENSES/CC-BY-SA-3.0.txt", "Attribution-ShareAlike 3.0"),
        ("permissive/LICENSES/Apache-2.0.txt", "Version 2.0, January 2004"),
    ],
)
def test_licence_text_is_the_licence_it_is_named_after(text: str, says: str) -> None:
    assert says in (CORPUS_DIR / text).read_text(encoding="utf-8")


@pytest.mark.parametrize("pack", PACKS)
def test_notice_counts_the_passages_of_every_source(pack: str) -> None:
    notice = (CORPUS_DIR / pack / "NOTICE").read_text(encoding="utf-8")
    counted = dict(re.findall(r"^(\S.*\))\n  passages: ([\d,]+)$", notice, flags=re.MULTILINE))
    sources = [row["source"] for row in rows_of(pack)]
    assert counted == {source: f"{sources.count(source):,}" for source in set(sources)}


def test_readme_counts_what_is_there() -> None:
    readme = (CORPUS_DIR / "README.md").read_text(encoding="utf-8")
    rows = {pack: rows_of(pack) for pack in PACKS}
    for pack, held in rows.items():
        held_out = sum(row["split"] == "held_out" for row in held)
        assert f"| `{pack}` | {len(held):,} | {held_out:,} |" in readme
    spoken = Counter(row["spoken_language"] for held in rows.values() for row in held)
    assert f"Hebrew ({spoken['he']} passages) and Hindi ({spoken['hi']})" in readme
    assert f"{sum(spoken.values()):,} passages" in readme


def test_files_for_reading_name_no_registry_host_and_no_mail_address() -> None:
    notices = [CORPUS_DIR / "README.md", *CORPUS_DIR.glob("*/NOTICE")]
    for file in [*notices, *CORPUS_DIR.glob("*/LICENSES/*")]:
        assert not REGISTRY.search(file.read_text(encoding="utf-8")), file
    for file in notices:
        assert not re.search(r"\w@\w+\.\w", file.read_text(encoding="utf-8")), file


@pytest.mark.parametrize(
    ("row_id", "split"),
    [
        ("000186fed2b07359", "calibration"),
        ("0004703a7b2d3bde", "calibration"),
        ("00058643e1f27c97", "held_out"),
        ("ff536e3844e8e2c0", "held_out"),
    ],
)
def test_split_of_a_row_never_changes(row_id: str, split: str) -> None:
    assert split_of(row_id) == split


@pytest.mark.parametrize("pack", PACKS)
def test_split_written_in_a_pack_is_that_of_the_app(pack: str) -> None:
    for row in rows_of(pack):
        assert row["split"] == split_of(row["id"])


def test_no_row_is_both_calibrated_and_evaluated_on() -> None:
    calibration, held_out = load_rows(split="calibration"), load_rows(split="held_out")
    assert len(held_out) == 582
    assert len(calibration) + len(held_out) == sum(ROWS.values())
    for field in ("id", "text"):
        assert not {row[field] for row in calibration} & {row[field] for row in held_out}


def test_passage_is_the_assistants_turn_word_for_word() -> None:
    for row in load_rows(split="held_out"):
        user, assistant = messages_of(row)
        assert assistant == {"role": "assistant", "content": row["text"]}
        assert user["role"] == "user"


def test_corpus_stays_small_enough_to_clone() -> None:
    size = sum(file.stat().st_size for file in Path(CORPUS_DIR).rglob("*") if file.is_file())
    assert size < 4_000_000

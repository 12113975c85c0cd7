"""Make the three licence packs of the starter corpus.

    python scripts/make_corpus_packs.py ../shared/corpus [--licence-texts DIR]

Reads ``calibration.jsonl`` and ``licences.json`` of the corpus folder and writes, for each pack,
``demo/corpus/<pack>/{rows.parquet,NOTICE,LICENSES/<SPDX id>.txt}``. The same input gives the
same bytes. Full licence texts are taken from ``--licence-texts`` (one ``<SPDX id>.txt`` a
licence), or kept where the pack has them already, so that a fresh clone needs no other source.
"""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
import typer

from app.sources.starter_corpus import CORPUS_DIR, PACKS, Pack, pack_file, split_of

logger = logging.getLogger("make_corpus_packs")

Row = dict[str, Any]

COLUMNS = (
    "id",
    "text",
    "spoken_language",
    "programming_language",
    "domain",
    "source",
    "path",
    "license",
    "split",
)
COPYLEFT = re.compile(r"^(A?GPL|LGPL|GFDL|MPL|EPL)-")
SHARE_ALIKE = re.compile(r"^CC-BY-SA-")

TITLES: dict[Pack, str] = {
    "permissive": "Passages under permissive licences or in the public domain",
    "cc-by-sa": "Passages under Creative Commons Attribution-ShareAlike",
    "copyleft": "Passages under the GPL, GFDL, MPL or EPL",
}

OWN_TERMS: dict[str, str] = {
    "LicenseRef-public-domain": """\
LicenseRef-public-domain

These passages are, as far as the packages they were taken from say, in the public domain or not
subject to copyright: old literature whose term has run out, founding documents and statutes, and
code dedicated to the public domain by its authors. NOTICE names the package of each and what it
says. No licence is granted here because none is needed where that statement holds; whether it
holds in your country is for you to judge.
""",
    "LicenseRef-UDHR-public-domain": """\
LicenseRef-UDHR-public-domain

These passages are translations of the Universal Declaration of Human Rights (United Nations,
1948). The declaration is an official document that the United Nations lets anybody reproduce;
the package they were taken from is under the MIT licence, which covers its packaging only.
Some translations are by national bodies. No licence is granted here beyond what the United
Nations and the translators allow.
""",
}


class CorpusError(ValueError):
    """The corpus cannot be packed as it is; the message says which row, source or licence."""


def alternatives_of(expression: str) -> list[list[str]]:
    """The choices of an SPDX expression, each as the ids that apply together.

    ``A OR B WITH C`` gives ``[[A], [B, C]]``; the corpus uses no brackets and no AND.
    """
    return [choice.split(" WITH ") for choice in expression.split(" OR ")]


def family_of(identifier: str) -> Pack:
    """The licence family, which is the pack, of one SPDX id."""
    if COPYLEFT.match(identifier):
        return "copyleft"
    return "cc-by-sa" if SHARE_ALIKE.match(identifier) else "permissive"


def pack_of(expression: str) -> Pack:
    """The pack of an SPDX expression: of its alternatives, the family that asks least."""
    return min((family_of(choice[0]) for choice in alternatives_of(expression)), key=PACKS.index)


def licence_ids(expression: str) -> set[str]:
    """The ids whose full texts a pack needs: those of the alternatives that put the row in it."""
    pack = pack_of(expression)
    chosen = [c for c in alternatives_of(expression) if family_of(c[0]) == pack]
    return {identifier for choice in chosen for identifier in choice}


def read_rows(file: Path) -> dict[Pack, list[Row]]:
    """The rows of the corpus by pack, each in the order of ids, with its part of the split."""
    packs: dict[Pack, list[Row]] = {pack: [] for pack in PACKS}
    seen: set[str] = set()
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        row = json.loads(line)
        if row["id"] in seen:
            raise CorpusError(f"{file.name} line {number}: id {row['id']} appears twice.")
        seen.add(row["id"])
        row["split"] = split_of(row["id"])
        packs[pack_of(row["license"])].append(row)
    return {pack: sorted(rows, key=lambda row: str(row["id"])) for pack, rows in packs.items()}


def write_rows(rows: list[Row], file: Path) -> None:
    """Write the rows as one zstd-compressed Parquet file with string columns."""
    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    table = pa.table(columns, schema=schema)
    pq.write_table(table, file, compression="zstd", compression_level=19)


def write_licences(rows: list[Row], folder: Path, texts: Path | None) -> None:
    """Write the full text of every licence the rows need, and remove any other.

    Raises CorpusError when a text is neither in ``texts`` nor in the folder already.
    """
    wanted = {identifier for row in rows for identifier in licence_ids(row["license"])}
    folder.mkdir(exist_ok=True)
    for stale in {file.stem for file in folder.glob("*.txt")} - wanted:
        (folder / f"{stale}.txt").unlink()
    for identifier in sorted(wanted):
        target = folder / f"{identifier}.txt"
        given = texts / target.name if texts else None
        if identifier in OWN_TERMS:
            target.write_text(OWN_TERMS[identifier], encoding="utf-8")
        elif given and given.exists():
            target.write_text(given.read_text(encoding="utf-8").strip() + "\n", encoding="utf-8")
        elif not target.exists():
            raise CorpusError(f"No text of {identifier}: put {target.name} in --licence-texts.")


def statement_of(source: str, statements: dict[str, str]) -> str:
    """What the package itself says about its licence, on one line and without e-mail addresses."""
    if source not in statements:
        raise CorpusError(f"licences.json says nothing about the source {source}.")
    said = " ".join(statements[source].split())
    said = re.sub(r"/usr/share/doc/\S+/copyright:", "copyright file:", said)
    return re.sub(r"\s*<[^<>@]+@[^<>]+>", "", said)


def notice_of(pack: Pack, rows: list[Row], statements: dict[str, str]) -> str:
    """The NOTICE of a pack: per source the number of passages, their SPDX ids and its statement."""
    by_source: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_source[row["source"]].append(row)
    lines = [
        f"Calibrant starter corpus, pack {pack}",
        TITLES[pack],
        "",
        f"{len(rows):,} passages from {len(by_source)} published packages. Each row of",
        "rows.parquet names its package, the file it was cut from and its licence. Whole",
        "paragraphs or top-level blocks were kept; licence headers, notices and duplicates were",
        "left out; nothing was rewritten. Authors and copyright holders are named in the",
        "packages. The full texts of the licences are in LICENSES. Where a passage may be used",
        "under one of several licences, it is in the pack of the one that asks least.",
    ]
    for source in sorted(by_source):
        licences = sorted({row["license"] for row in by_source[source]})
        lines += [
            "",
            source,
            f"  passages: {len(by_source[source]):,}",
            f"  licence of these passages: {'; '.join(licences)}",
            f"  the package says: {statement_of(source, statements)}",
        ]
    return "\n".join(lines) + "\n"


def main(
    corpus: Annotated[Path, typer.Argument(help="Folder of calibration.jsonl, licences.json.")],
    licence_texts: Annotated[Path | None, typer.Option(help="Folder of <SPDX id>.txt.")] = None,
) -> None:
    """Write demo/corpus/<pack>/ for each licence family."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    statements = json.loads((corpus / "licences.json").read_text(encoding="utf-8"))
    for pack, rows in read_rows(corpus / "calibration.jsonl").items():
        folder = CORPUS_DIR / pack
        folder.mkdir(parents=True, exist_ok=True)
        write_licences(rows, folder / "LICENSES", licence_texts)
        notice = notice_of(pack, rows, statements)
        (folder / "NOTICE").write_text(notice, encoding="utf-8")
        write_rows(rows, pack_file(pack))
        held_out = sum(row["split"] == "held_out" for row in rows)
        logger.info("%s: %d rows, %d of them held out", pack, len(rows), held_out)


if __name__ == "__main__":
    typer.run(main)

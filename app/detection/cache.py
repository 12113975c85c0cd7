"""What texts were found to be, kept between audits: a text is looked at once."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from app.detection.content import ALGORITHM, Found, detect

FILE = "detections.sqlite"
# Texts between two writes: one that is lost by a crash is looked at again.
WRITE_EVERY = 200
_WAIT_SECONDS = 30.0


@contextmanager
def kept_detection(directory: Path) -> Iterator[Callable[[str], tuple[Found, ...]]]:
    """:func:`detect`, with what it finds kept in ``directory`` under the text's hash.

    Findings of another version of detection are not used. Several processes may share the file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(directory / FILE, timeout=_WAIT_SECONDS)
    with closing(database):
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE IF NOT EXISTS found (text BLOB PRIMARY KEY, parts TEXT)")
        fresh: dict[bytes, str] = {}

        def write() -> None:
            with database:
                database.executemany("INSERT OR REPLACE INTO found VALUES (?, ?)", fresh.items())
            fresh.clear()

        def looked_at(text: str) -> tuple[Found, ...]:
            key = _key(text)
            known = fresh.get(key) or _read(database, key)
            if known is None:
                parts = detect(text)
                fresh[key] = json.dumps([part.as_json() for part in parts])
                if len(fresh) >= WRITE_EVERY:
                    write()
                return parts
            return tuple(Found.of_json(part) for part in json.loads(known))

        yield looked_at
        write()


def _key(text: str) -> bytes:
    content = f"{ALGORITHM}\0{text}".encode("utf-8", errors="surrogatepass")
    return hashlib.sha256(content).digest()[:16]


def _read(database: sqlite3.Connection, key: bytes) -> str | None:
    row = database.execute("SELECT parts FROM found WHERE text = ?", (key,)).fetchone()
    return None if row is None else str(row[0])

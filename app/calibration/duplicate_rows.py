"""Which rows of some sources say what an earlier one says: signatures kept beside the index."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.artifacts import new_file
from app.calibration import duplicates
from app.sources.rows import RowsFile, iterate_rows, messages_of

# Shorter words of an assistant ("Yes.", a refusal, one call of a tool) answer many questions.
TELLING = 200


def said_in(turns: Sequence[tuple[str, str]], *, has_prompt: bool = False) -> str:
    """What a row says, of the role and the words of its turns: the assistant's words, since many
    rows share a system prompt or a request; where these are short, or there are none, all but
    the system's. Not so where a prompt (``has_prompt``) stands in the user's turn, which many
    rows share too."""
    answers = [words for role, words in turns if role == "assistant"]
    if answers and (has_prompt or sum(map(len, answers)) >= TELLING):
        return "\n".join(answers)
    return "\n".join(words for role, words in turns if role != "system")


def said_by(row: Mapping[str, Any]) -> str:
    """What a row of a source says: the text of a passage; of a conversation as :func:`said_in`,
    with the reasoning before a turn's words and its calls after them."""
    if not row.get("messages"):
        return str(row["text"])
    return said_in([(str(each.get("role")), _words(each)) for each in messages_of(row)])


@dataclass(frozen=True, eq=False)
class SignatureFiles:
    """The signatures of an index's rows: those of ``files``, one after the other, at
    ``positions``. Made once for each revision of a source, since no tokenizer is in them."""

    files: tuple[RowsFile, ...]
    cache_dir: Path
    positions: NDArray[np.intp]

    def load(self) -> NDArray[np.uint32]:
        """uint32 ``[rows, duplicates.PERMUTATIONS]``. Raises DiskFull."""
        parts = [_load(file, self.cache_dir) for file in self.files]
        return np.concatenate(parts)[self.positions]


def first_of_each(signatures: NDArray[np.uint32], held_out: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which rows say something first: of every group of duplicates one is kept, the first in the
    order given, and no held-out row that the calibration part says too."""
    order = np.argsort(held_out, kind="stable")
    leaders = duplicates.groups(signatures[order])
    first = np.zeros(len(order), dtype=np.bool_)
    first[order] = leaders == np.arange(len(order))
    return first


def leader_of_each(row_ids: Sequence[str], texts: Sequence[str]) -> list[str | None]:
    """For each row the id of the first that says the same or nearly the same, None for the first
    itself and for a row like no other."""
    leaders = duplicates.groups(duplicates.signatures(texts))
    return [
        None if leader == at else row_ids[int(leader)] for at, leader in enumerate(leaders.tolist())
    ]


def _load(file: RowsFile, cache_dir: Path) -> NDArray[np.uint32]:
    name = f"{file.source} {file.revision} {duplicates.ALGORITHM}"
    place = cache_dir / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.signatures.npy"
    if not place.is_file():
        made = duplicates.signatures(_texts(file))
        with new_file(place) as draft, draft.open("wb") as stream:
            np.save(stream, made, allow_pickle=False)
    loaded: NDArray[np.uint32] = np.load(place, allow_pickle=False)
    return loaded


def _texts(file: RowsFile) -> Iterator[str]:
    for batch in iterate_rows(file):
        yield from map(said_by, batch)


def _words(message: Mapping[str, Any]) -> str:
    pieces = [message.get("reasoning_content"), message.get("content")]
    if calls := message.get("tool_calls"):
        pieces.append(json.dumps(calls, ensure_ascii=False, sort_keys=True))
    return "\n".join(piece for piece in pieces if isinstance(piece, str) and piece)

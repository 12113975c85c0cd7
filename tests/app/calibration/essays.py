"""A fetched source of conversations whose words are known, and compositions over it."""

from __future__ import annotations

import random
from pathlib import Path

from app.calibration.spec import SetSpec
from app.facets import Facet
from app.sources.entry import FolderOrigin, SourceEntry
from app.sources.store import Row, write_revision

QUESTION = {"role": "user", "content": "Tell me more about it, please."}
WORDS = ["river", "stone", "evening", "market", "letter", "winter", "garden", "silver", "bridge"]


def write_source(
    directory: Path, name: str, talks: list[list[dict[str, str]]], **labels: str
) -> None:
    """A fetched source of some conversations."""
    rows = [
        Row(number, talk, "\n".join(turn["content"] for turn in talk))
        for number, talk in enumerate(talks, start=1)
    ]
    entry = SourceEntry(
        name=name,
        origin=FolderOrigin(path=Path("/nowhere")),
        formatter="chat_completion",
        tags={Facet(facet): value for facet, value in labels.items()},
    )
    write_revision(entry, "c" * 40, rows, directory)


def talk(words: str) -> list[dict[str, str]]:
    """A question and its answer."""
    return [QUESTION, {"role": "assistant", "content": words}]


def essays(count: int) -> list[list[dict[str, str]]]:
    """Conversations whose answers are 60 words at random, the same every time."""
    chance = random.Random(5)
    return [talk(" ".join(chance.choices(WORDS, k=60))) for _ in range(count)]


def quiz(count: int) -> list[list[dict[str, str]]]:
    """Questions of 40 words at random, each answered in one word."""
    chance = random.Random(3)
    return [
        [
            {"role": "user", "content": " ".join(chance.choices(WORDS, k=40)) + "?"},
            {"role": "assistant", "content": chance.choice(["Yes.", "No."])},
        ]
        for _ in range(count)
    ]


def spec_over(name: str, **changes: object) -> SetSpec:
    """A composition of every row of a source."""
    document = {
        "name": "t",
        "sources": [name],
        "max_length": 256,
        "slices": [{"name": "all", "rows": "all"}],
        **changes,
    }
    return SetSpec.model_validate(document)

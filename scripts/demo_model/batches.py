"""Corpus rows as token sequences, and sequences as batches of about equal length."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerFast

from app.sources.rows import messages_of
from scripts.demo_model.tokenizer import PAD

IGNORED = -100
SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant that writes prose and code.",
    "Answer in the language that is asked for.",
)


class Batch(NamedTuple):
    """Sequences padded on the right."""

    ids: torch.Tensor
    """(sequences, length) token ids."""
    targets: torch.Tensor
    """(sequences, length) the token that follows each, ``IGNORED`` at the end and in padding."""

    real: torch.Tensor
    """(sequences, length) True where there is a token, False in padding."""

    @property
    def tokens(self) -> int:
        """Tokens fed, without padding."""
        return int(self.real.sum())


def chat_ids(
    row: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast, system: str | None = None
) -> list[int]:
    """A row as a rendered conversation, optionally with a system turn before it."""
    turns = [{"role": "system", "content": system}] if system else []
    text = tokenizer.apply_chat_template(turns + messages_of(row), tokenize=False)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def plain_ids(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """A row as bare text, with neither turns nor marks."""
    ids: list[int] = tokenizer(row["text"], add_special_tokens=False)["input_ids"]
    return ids


def epoch_sequences(
    rows: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerFast,
    epoch: int,
    rng: random.Random,
) -> list[list[int]]:
    """Every row once, half as conversations and half as plain text, which swap each epoch.

    One conversation in four begins with a system turn.
    """
    sequences = []
    for index, row in enumerate(rows):
        if (index + epoch) % 2:
            sequences.append(plain_ids(row, tokenizer))
        else:
            system = rng.choice(SYSTEM_PROMPTS) if rng.random() < 0.25 else None
            sequences.append(chat_ids(row, tokenizer, system))
    return sequences


def padded(sequences: Sequence[Sequence[int]], pad: int) -> Batch:
    """Sequences of any length as one batch padded on the right.

    Padding comes after all real tokens, so causal attention needs no mask to keep it out.
    """
    shape = (len(sequences), max(map(len, sequences)))
    ids = torch.full(shape, pad)
    targets = torch.full(shape, IGNORED)
    for index, sequence in enumerate(sequences):
        tokens = torch.tensor(sequence)
        ids[index, : len(tokens)] = tokens
        targets[index, : len(tokens) - 1] = tokens[1:]
    return Batch(ids, targets, ids != pad)


def by_length(sequences: list[list[int]], batch_tokens: int, pad: int) -> list[Batch]:
    """Batches of neighbours in length, each of at most ``batch_tokens`` with its padding."""
    batches: list[Batch] = []
    group: list[list[int]] = []
    for sequence in sorted(sequences, key=len):
        if group and (len(group) + 1) * len(sequence) > batch_tokens:
            batches.append(padded(group, pad))
            group = []
        group.append(sequence)
    return [*batches, padded(group, pad)]


def training_batches(
    rows: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerFast,
    batch_tokens: int,
    seed: int,
) -> Iterator[Batch]:
    """Endless shuffled batches, epoch after epoch; the same seed gives the same batches."""
    rng = random.Random(seed)  # noqa: S311
    pad = tokenizer.get_vocab()[PAD]
    epoch = 0
    while True:
        sequences = epoch_sequences(rows, tokenizer, epoch, rng)
        rng.shuffle(sequences)
        for start in range(0, len(sequences), 512):
            batches = by_length(sequences[start : start + 512], batch_tokens, pad)
            rng.shuffle(batches)
            yield from batches
        epoch += 1

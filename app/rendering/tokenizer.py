"""A model's tokenizer without transformers: the same ids from ``tokenizer.json`` alone.

What is put before and after plain text is what that file's post-processor says. Transformers 5
does the same: it drops ``add_bos_token`` of tokenizer_config.json where there is a tokenizer.json
(``tokenization_utils_base.py``, ``_from_pretrained``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from app.errors import ModelRefused


@dataclass(frozen=True)
class ModelTokenizer:
    """A tokenizer and the SHA-256 of its ``tokenizer.json``, all that its ids depend on."""

    tokenizer: Tokenizer
    sha256: str

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[Encoding]:
        """Ids and character offsets of each text.

        A text that a chat template has rendered carries its special tokens already: encode it
        with ``add_special_tokens=False``, as ``apply_chat_template`` does, or it begins with two
        BOS. Plain text takes those the tokenizer adds.
        """
        return list(self.tokenizer.encode_batch(list(texts), add_special_tokens=add_special_tokens))

    def count(self, texts: Sequence[str]) -> list[int]:
        """The length of each text in tokens, without the tokenizer's own special ones."""
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding) for encoding in encodings]


def load_tokenizer(directory: Path) -> ModelTokenizer:
    """The tokenizer of a model directory. Raises ModelRefused when it cannot be read."""
    file = directory / "tokenizer.json"
    if not directory.is_dir():
        raise ModelRefused(f"There is no model directory {directory}.")
    if not file.is_file():
        raise ModelRefused(
            f"{directory} has no tokenizer.json, so its text cannot be turned into tokens: save "
            "the model's fast tokenizer beside its weights."
        )
    content = file.read_bytes()
    try:
        tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # the binding raises bare Exception
        raise ModelRefused(f"{file} is not a tokenizer: {error}.") from error
    tokenizer.no_truncation()  # both are saved in the file when they were on
    tokenizer.no_padding()
    return ModelTokenizer(tokenizer, hashlib.sha256(content).hexdigest())

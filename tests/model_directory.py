"""A small model directory: a byte-level BPE tokenizer of the corpus and a chat template."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from app.sources.starter_corpus import load_rows

SPECIAL_TOKENS = ["<bos>", "<eos>", "<|system|>", "<|user|>", "<|assistant|>"]
TEMPLATE = """\
{{ bos_token }}
{%- for message in messages %}
{{ '<|' + message.role + '|>' }}
{% if message.role == 'assistant' %}
{% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}
{% else %}
{{ message.content }}
{%- endif %}
{%- endfor %}
"""


def make_model_directory(directory: Path) -> Path:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    passages = (row["text"] for row in load_rows(["permissive"])[::10])
    tokenizer.train_from_iterator(passages, trainer)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    return directory

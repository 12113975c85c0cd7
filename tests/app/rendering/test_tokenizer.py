from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from app.errors import ModelRefused
from app.rendering.chat_template import load_chat_template
from app.rendering.tokenizer import load_tokenizer
from app.sources.rows import messages_of
from app.sources.starter_corpus import load_rows

TEXTS = ["fn main() {}", "Grüße, <eos> שלום", ""]


def changed(model_dir: Path, to: Path, **config: Any) -> Path:
    shutil.copytree(model_dir, to)
    file = to / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return to


def ids(directory: Path, texts: list[str], *, add_special_tokens: bool) -> list[list[int]]:
    encodings = load_tokenizer(directory).encode(texts, add_special_tokens=add_special_tokens)
    return [encoding.ids for encoding in encodings]


def with_post_processor(directory: Path) -> Path:
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    bos = tokenizer.token_to_id("<bos>")
    tokenizer.post_processor = TemplateProcessing(
        single=["<bos>", "$A"], special_tokens=[("<bos>", bos)]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


@pytest.mark.parametrize("config", [{}, {"add_bos_token": True}, {"add_eos_token": True}])
@pytest.mark.parametrize("post_processor", [False, True])
def test_ids_are_those_of_transformers(
    model_dir: Path, tmp_path: Path, config: dict[str, bool], post_processor: bool
) -> None:
    transformers = pytest.importorskip("transformers")
    directory = changed(model_dir, tmp_path / "m", **config)
    if post_processor:
        with_post_processor(directory)
    theirs = transformers.AutoTokenizer.from_pretrained(directory)
    for special in (True, False):
        expected = theirs(TEXTS, add_special_tokens=special)["input_ids"]
        assert ids(directory, TEXTS, add_special_tokens=special) == expected
    bos = theirs.convert_tokens_to_ids("<bos>")
    plain = ids(directory, ["x"], add_special_tokens=True)[0]
    assert (plain[0] == bos) == post_processor


def test_a_rendered_conversation_has_one_bos(model_dir: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    directory = with_post_processor(changed(model_dir, tmp_path / "m"))
    theirs = transformers.AutoTokenizer.from_pretrained(directory)
    template = load_chat_template(directory)
    for row in load_rows()[:40]:
        messages = messages_of(row)
        text = template.render(messages)
        assert text == theirs.apply_chat_template(messages, tokenize=False)
        expected = theirs.apply_chat_template(messages, return_dict=True)["input_ids"]
        assert ids(directory, [text], add_special_tokens=False) == [expected]
        assert expected.count(theirs.convert_tokens_to_ids("<bos>")) == 1


def test_truncation_and_padding_saved_in_the_file_are_off(model_dir: Path, tmp_path: Path) -> None:
    directory = changed(model_dir, tmp_path / "m")
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=50)
    tokenizer.save(str(directory / "tokenizer.json"))
    text = ["one two three four five"]
    assert ids(directory, text, add_special_tokens=False) == ids(
        model_dir, text, add_special_tokens=False
    )


def test_the_fingerprint_follows_what_ids_depend_on(model_dir: Path, tmp_path: Path) -> None:
    same = changed(model_dir, tmp_path / "same", model_max_length=77)
    other = with_post_processor(changed(model_dir, tmp_path / "other"))
    assert load_tokenizer(same).sha256 == load_tokenizer(model_dir).sha256
    assert load_tokenizer(other).sha256 != load_tokenizer(model_dir).sha256


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="There is no model directory"):
        load_tokenizer(tmp_path / "none")


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"has no tokenizer\.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe", b'{"model": 1}'])
def test_a_damaged_tokenizer_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelRefused, match="is not a tokenizer"):
        load_tokenizer(tmp_path)

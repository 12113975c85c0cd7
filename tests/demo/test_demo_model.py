"""The demo model as it is committed: the real checkpoint's names, its template, its card's word."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jinja2
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, MiniMaxM2ForCausalLM

from app.sources.rows import messages_of
from app.sources.starter_corpus import load_rows

MODEL = Path(__file__).resolve().parents[2] / "demo" / "model"
LAYERS, EXPERTS, TOP_K = 6, 32, 4
ODD_TEXT = "naïve \t שלום 你好\r\n\r\n  for (;;) { x <<= 0x1F; } // é́ 🦀 \x00"


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return load_file(MODEL / "model.safetensors")


@pytest.fixture(scope="module")
def model() -> MiniMaxM2ForCausalLM:
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def measurements() -> dict[str, Any]:
    return json.loads((MODEL / "measurements.json").read_text(encoding="utf-8"))


def real_names() -> set[str]:
    """The names of a MiniMax-M2 checkpoint of this many layers and experts, written out."""
    names = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}
    for layer in (f"model.layers.{number}" for number in range(LAYERS)):
        names |= {f"{layer}.{norm}_layernorm.weight" for norm in ("input", "post_attention")}
        names |= {f"{layer}.self_attn.{part}_proj.weight" for part in "qkvo"}
        names |= {f"{layer}.self_attn.{part}_norm.weight" for part in "qk"}
        names |= {f"{layer}.block_sparse_moe.gate.weight"}
        names |= {f"{layer}.block_sparse_moe.e_score_correction_bias"}
        for expert in (f"{layer}.block_sparse_moe.experts.{number}" for number in range(EXPERTS)):
            names |= {f"{expert}.{part}.weight" for part in ("w1", "w2", "w3")}
    return names


def test_tensor_names_are_those_of_the_real_checkpoint(tensors: dict[str, torch.Tensor]) -> None:
    assert set(tensors) == real_names()


def test_weights_are_bfloat16_and_correction_biases_float32(
    tensors: dict[str, torch.Tensor],
) -> None:
    biases = [name for name in tensors if name.endswith("e_score_correction_bias")]
    for name, tensor in tensors.items():
        assert tensor.dtype == (torch.float32 if name in biases else torch.bfloat16), name
        assert tensor.isfinite().all(), name


def test_correction_biases_are_learnt_and_survive_a_cast(tensors: dict[str, torch.Tensor]) -> None:
    """Loading in bfloat16 casts them; rounded values would choose other experts."""
    for layer in range(LAYERS):
        bias = tensors[f"model.layers.{layer}.block_sparse_moe.e_score_correction_bias"]
        assert bias.std() > 0.001
        assert torch.equal(bias, bias.bfloat16().float())


def test_folder_holds_no_pickle_and_stays_small() -> None:
    allowed = {".safetensors", ".json", ".jinja", ".md"}
    assert {file.suffix for file in MODEL.iterdir()} <= allowed
    assert (MODEL / "model.safetensors").stat().st_size < 13_000_000


def test_config_is_the_shape_that_is_promised() -> None:
    config = AutoConfig.from_pretrained(MODEL)
    assert config.model_type == "minimax_m2"
    assert (config.num_hidden_layers, config.hidden_size) == (LAYERS, 128)
    assert (config.num_local_experts, config.num_experts_per_tok) == (EXPERTS, TOP_K)
    assert (config.intermediate_size, config.vocab_size) == (64, 4096)
    assert config.max_position_embeddings == 2048
    assert not config.tie_word_embeddings


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_reloads_without_missing_or_unexpected_tensors(dtype: torch.dtype) -> None:
    _, report = AutoModelForCausalLM.from_pretrained(MODEL, dtype=dtype, output_loading_info=True)
    assert not any(report.values()), report


def test_reloaded_model_computes_with_the_files_tensors(
    model: MiniMaxM2ForCausalLM, tensors: dict[str, torch.Tensor]
) -> None:
    """The same logits as a model filled by hand, so no expert is swapped, mixed up or random."""
    by_hand = MiniMaxM2ForCausalLM(model.config).eval()
    state = {}
    for name, tensor in tensors.items():
        if ".experts." not in name:
            state[name.replace("block_sparse_moe", "mlp")] = tensor.float()
    for layer in range(LAYERS):
        experts = f"model.layers.{layer}.block_sparse_moe.experts"
        w1, w2, w3 = (
            torch.stack([tensors[f"{experts}.{e}.{part}.weight"].float() for e in range(EXPERTS)])
            for part in ("w1", "w2", "w3")
        )
        state[f"model.layers.{layer}.mlp.experts.gate_up_proj"] = torch.cat([w1, w3], dim=1)
        state[f"model.layers.{layer}.mlp.experts.down_proj"] = w2
    by_hand.load_state_dict(state)
    ids = torch.arange(100, 164)[None]
    with torch.inference_mode():
        assert torch.equal(model(input_ids=ids).logits, by_hand(input_ids=ids).logits)


def test_tokenizer_loads_both_ways_and_loses_nothing(tokenizer: Any) -> None:
    plain = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    assert plain.get_vocab_size() == 4096
    for text in [ODD_TEXT, *(row["text"] for row in load_rows(split="held_out")[::20])]:
        ids = tokenizer(text)["input_ids"]
        assert ids == plain.encode(text).ids
        assert tokenizer.decode(ids) == text


def test_marks_of_a_turn_are_one_token_each(tokenizer: Any) -> None:
    config = AutoConfig.from_pretrained(MODEL)
    marks = ["<|pad|>", "<|begin|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    ids = [tokenizer(mark)["input_ids"] for mark in marks]
    assert all(len(one) == 1 for one in ids)
    assert ids[0] == [config.pad_token_id]
    assert ids[1] == [config.bos_token_id]
    assert ids[-1] == [config.eos_token_id]


def test_chat_template_renders_the_three_roles(tokenizer: Any) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "<b> & {{ 1 }}"},
        {"role": "assistant", "content": "Yes.\n"},
    ]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    assert rendered == (
        "<|begin|><|system|>Be brief.<|end|><|user|><b> & {{ 1 }}<|end|><|assistant|>Yes.\n<|end|>"
    )
    asked = tokenizer.apply_chat_template(messages[:2], tokenize=False, add_generation_prompt=True)
    assert rendered.startswith(asked)
    assert asked.endswith("<|end|><|assistant|>")


def test_chat_template_refuses_a_role_it_does_not_know(tokenizer: Any) -> None:
    with pytest.raises(jinja2.TemplateError, match="system, user and assistant, not tool"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "42"}], tokenize=False)


def nats_per_token(
    model: MiniMaxM2ForCausalLM, tokenizer: Any, rows: list[dict[str, Any]]
) -> float:
    """Mean loss of the passages as the assistant's turn, one by one, without padding."""
    nats, tokens = 0.0, 0
    for row in rows:
        turns = messages_of(row)
        prompt, text = (
            tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True),
            tokenizer.apply_chat_template(turns, tokenize=False).removesuffix("<|end|>"),
        )
        start = len(tokenizer(prompt)["input_ids"])
        ids = torch.tensor(tokenizer(text)["input_ids"])
        with torch.inference_mode():
            logits = model(input_ids=ids[None]).logits[0, start - 1 : -1]
        nats += float(cross_entropy(logits, ids[start:], reduction="sum"))
        tokens += len(ids) - start
    return nats / tokens


@pytest.mark.parametrize("language", ["hi", "he"])
def test_held_out_loss_is_what_the_measurements_say(
    language: str, model: MiniMaxM2ForCausalLM, tokenizer: Any, measurements: dict[str, Any]
) -> None:
    rows = [r for r in load_rows(split="held_out") if r["spoken_language"] == language]
    measured = measurements["loss"]["spoken_language"][language]
    assert len(rows) == measured["rows"]
    loss = nats_per_token(model, tokenizer, rows)
    assert loss == pytest.approx(measured["nats_per_token"], abs=0.005)


def test_model_has_learnt_every_spoken_language(measurements: dict[str, Any]) -> None:
    """An untrained model has ln 4096 = 8.3 nats a token everywhere."""
    losses = measurements["loss"]["spoken_language"]
    assert len(losses) == 13
    for language, loss in losses.items():
        assert loss["nats_per_token"] < 5.0, language
        assert loss["nats_per_token_plain"] < 5.0, language


def test_measured_rows_are_the_held_out_ones(measurements: dict[str, Any]) -> None:
    assert measurements["held_out"]["rows"] == len(load_rows(split="held_out"))
    assert measurements["run"]["rows"] == len(load_rows(split="calibration"))


def test_experts_are_alive_and_differ_by_language(measurements: dict[str, Any]) -> None:
    load = torch.tensor(measurements["experts"]["load"])
    assert load.shape == (LAYERS, EXPERTS)
    assert torch.allclose(load.sum(1), torch.ones(LAYERS))
    assert int((load == 0).sum()) == measurements["experts"]["dead"] == 0
    routing = measurements["routing"]["spoken_language"]
    assert routing["pair_spread"]["median"] > 1.5 * routing["halves_of_one_value"]


def test_card_shows_the_measured_figures(measurements: dict[str, Any]) -> None:
    card = (MODEL / "README.md").read_text(encoding="utf-8")
    for facet in ("spoken_language", "domain", "programming_language"):
        for loss in measurements["loss"][facet].values():
            figures = f"| {loss['nats_per_token']:.2f} | {loss['nats_per_token_plain']:.2f} |"
            assert f"| {loss['rows']:,} | {loss['tokens']:,} {figures}" in card
    assert f"{measurements['run']['seconds'] / 60:.1f} minutes" in card
    assert "[CC-BY-SA-4.0](https://creativecommons.org/licenses/by-sa/4.0/)" in card
    assert f"{math.log(4096):.2f}" in card

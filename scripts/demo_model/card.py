"""The model card of the demo model, written from its measurements."""

from __future__ import annotations

import math
import statistics
from typing import Any

from app.facets import DOMAINS, SPOKEN_LANGUAGES
from app.sources.starter_corpus import PACKS

PAIRS = {
    "spoken_language": "spoken languages",
    "domain": "domains",
    "programming_language": "programming languages (few rows each)",
}

CARD = """\
---
license: cc-by-sa-4.0
library_name: transformers
pipeline_tag: text-generation
---

# Calibrant's demo model

A MiniMax-M2 in miniature, trained from scratch so that Calibrant has something real to calibrate,
quantize and measure on two CPU cores. It has learnt the look of thirteen spoken and 59
programming languages and nothing of what they say: **use it to try the instrument, never for its
answers.**

## What it is

The architecture of MiniMax-M2 (`MiniMaxM2ForCausalLM`): 6 layers, hidden size 128, 4 query and 2
key-value heads of 32 with query and key norms, half of each head rotated, 32 experts of
intermediate size 64 of which 4 are chosen by a sigmoid router with a correction bias;
{parameters:,} parameters. Weights are bfloat16, the correction biases float32, and the tensor
names are those of the real checkpoint (`block_sparse_moe.experts.N.w1.weight`). The tokenizer is
a byte-level BPE of 4,096 entries learnt from the same rows; no text is unknown to it. The chat
template knows the roles system, user and assistant. Positions up to 2,048 are allowed, but no
training sequence was longer than about 1,600 tokens.

## How it was made

    {command}

| | |
|---|---|
| training text | the calibration part of `demo/corpus`, packs {pack_names}, {rows:,} rows |
| rendering | each epoch half the rows as conversations and half as plain text, which then swap |
| tokens | {tokens:,} in {steps:,} steps |
| time | {minutes:.1f} minutes on {threads} CPU thread(s), {speed:,.0f} tokens a second |
| seed | {seed} |
| optimizer | Muon ({muon_lr}) for attention and experts, AdamW ({adam_lr}) for the rest |
| schedule | warmup over {warmup:.0%}, then flat, linear to 0 over the last {decay:.0%} |
| balance | no auxiliary loss; correction biases moved by {bias_lr} times the schedule a step |
| torch | {torch} |

The seed fixes weights, rows, order and turns. Another CPU or another version of torch sums in
another order, so the bytes can differ there; the figures below should not by much.

## Licence

The model was trained on all three packs, and about half of that text is under copyleft or
share-alike licences (GPL, GFDL, MPL, EPL, CC-BY-SA; see the NOTICE of each pack). Whether a model
is a derived work of its training text is not settled. What rights the makers of this project have
in the weights they give under [CC-BY-SA-4.0](https://creativecommons.org/licenses/by-sa/4.0/). They
cannot give more than that: a passage that the model repeats stays under its own licence, and for
text of the copyleft pack that is the GPL, GFDL, MPL or EPL. Who needs weights without that text can
make them: `--packs permissive`.

## Held-out loss

On the {held_rows} rows that were never trained on, split by a hash of the row id. Nats per token of
the passage, in float32 arithmetic on the saved weights; "chat" is the passage as the assistant's
turn, "plain" the passage alone. An untrained model has ln 4,096 = {uniform:.2f}. A token holds more
text in one language than in another: compare languages by bits per byte.

| | rows | tokens | chat | plain | bits per byte (chat) |
|---|---:|---:|---:|---:|---:|
{loss_all}

The split is by passage: two passages of one file, or one section in two languages, can lie on both
sides. The second line is the loss on a sample of rows that were trained on; the distance of the
two is what was learnt by heart.

### By spoken language

| language | rows | tokens | chat | plain | bits per byte (chat) |
|---|---:|---:|---:|---:|---:|
{loss_spoken}

### By domain

| domain | rows | tokens | chat | plain | bits per byte (chat) |
|---|---:|---:|---:|---:|---:|
{loss_domain}

### By programming language

Few rows each, so single figures are rough. Not measured, because no row is held out:
{not_measured}.

| language | rows | tokens | chat | plain | bits per byte (chat) |
|---|---:|---:|---:|---:|---:|
{loss_code}

## Routing

Over the passages' tokens of all held-out rows (chat): {dead} of {experts} experts are reached by no
token. The least used expert has {least:.2f} times the mean load of its layer, the most used
{greatest:.2f} times. Correction biases lie between {bias_min:.3f} and {bias_max:.3f}.

Total variation between the expert loads of a language and those of all rows (0 the same experts
equally often, 1 no expert in common), by layer:

| language | {layer_names} | mean |
|---|{layer_rules}---:|
{routing_rows}

Between two of a kind, mean over layers; "two halves" is the mean distance of two halves of one
language's rows, which is what chance and topic make; "untrained" is the model before its first
step, whose loads differ by language too, because the tokens do.

| | least | median | greatest | two halves | median, untrained |
|---|---:|---:|---:|---:|---:|
{pair_rows}

The matrices are in `measurements.json`.
"""


def loss_line(name: str, loss: dict[str, float]) -> str:
    """One row of a loss table."""
    return (
        f"| {name} | {loss['rows']:,} | {loss['tokens']:,} | {loss['nats_per_token']:.2f} "
        f"| {loss['nats_per_token_plain']:.2f} | {loss['bits_per_byte']:.2f} |"
    )


def loss_table(losses: dict[str, dict[str, float]], labels: dict[str, str]) -> str:
    """The rows of a facet's table and, below them, the mean over its values."""
    lines = [loss_line(labels.get(value, value), loss) for value, loss in losses.items()]
    means = {
        key: statistics.mean(loss[key] for loss in losses.values())
        for key in ("nats_per_token", "nats_per_token_plain", "bits_per_byte")
    }
    totals = {key: sum(loss[key] for loss in losses.values()) for key in ("rows", "tokens")}
    return "\n".join([*lines, loss_line("**mean of the above**", means | totals)])


def routing_line(language: str, by_layer: list[float]) -> str:
    """One language's total variation against all rows, by layer and on average."""
    cells = " | ".join(f"{value:.2f}" for value in by_layer)
    return f"| {SPOKEN_LANGUAGES[language]} | {cells} | {statistics.mean(by_layer):.2f} |"


def pair_line(name: str, routing: dict[str, Any], untrained: dict[str, Any]) -> str:
    """How far two values of a facet lie apart, beside what that means."""
    apart = routing["pair_spread"]
    return (
        f"| {name} | {apart['min']:.2f} | {apart['median']:.2f} | {apart['max']:.2f} "
        f"| {routing['halves_of_one_value']:.2f} | {untrained['pair_spread']['median']:.2f} |"
    )


def command_of(run: dict[str, Any]) -> str:
    """The command that makes the checkpoint again."""
    chosen = () if run["packs"] == list(PACKS) else run["packs"]
    packs = " ".join(f"--packs {pack}" for pack in chosen)
    budget, seed = run["schedule"]["tokens"], run["seed"]
    return f"python -m scripts.train_demo_model --tokens {budget} --seed {seed} {packs}".rstrip()


def card_of(measurements: dict[str, Any]) -> str:
    """The card's Markdown."""
    run, loss, experts = (measurements[key] for key in ("run", "loss", "experts"))
    routing = measurements["routing"]
    spoken = routing["spoken_language"]["against_all_by_layer"]
    layers = range(1, len(experts["load"]) + 1)
    both = {"held out": measurements["held_out"], "trained on": measurements["calibration"]}
    return CARD.format(
        **{**run["schedule"], **run},
        command=command_of(run),
        pack_names=", ".join(run["packs"]),
        minutes=run["seconds"] / 60,
        speed=run["tokens"] / run["seconds"],
        held_rows=measurements["held_out"]["rows"],
        uniform=math.log(4096),
        loss_all="\n".join(loss_line(name, value) for name, value in both.items()),
        loss_spoken=loss_table(loss["spoken_language"], SPOKEN_LANGUAGES),
        loss_domain=loss_table(loss["domain"], DOMAINS),
        loss_code=loss_table(loss["programming_language"], {}),
        not_measured=", ".join(measurements["not_measured"]["programming_language"]) or "none",
        dead=experts["dead"],
        experts=experts["experts"],
        least=experts["least_share_of_mean"],
        greatest=experts["greatest_share_of_mean"],
        bias_min=experts["bias_min"],
        bias_max=experts["bias_max"],
        layer_names=" | ".join(f"layer {number}" for number in layers),
        layer_rules="---:|" * len(layers),
        routing_rows="\n".join(routing_line(*item) for item in spoken.items()),
        pair_rows="\n".join(
            pair_line(name, routing[facet], measurements["untrained"][facet])
            for facet, name in PAIRS.items()
        ),
    )

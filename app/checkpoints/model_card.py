"""The model card of a checkpoint, as Hugging Face reads it: a YAML header and Markdown.

Every figure is one of ``app.checkpoints.facts``: what was measured of this checkpoint. What was not
is called "not measured"; nothing is claimed of other models, hardware or tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import yaml

from app.checkpoints.facts import Facts
from app.checkpoints.manifest import MANIFEST
from app.checkpoints.serving import serve_commands
from app.facets import Facet, label_of
from app.formatting import NOT_MEASURED, counted, fixed, integer, number, percent, scaled, size
from app.jobs import files
from app.recipes.files import dump_recipe
from app.templating import facet_value

COVERAGE_PICTURE = "coverage.svg"


def model_card(facts: Facts) -> str:
    """The README.md of a checkpoint."""
    sections = (
        _introduction(facts),
        _quality(facts),
        _calibration(facts),
        _coverage(facts),
        _method(facts),
        _serving(facts),
        _provenance(facts),
    )
    lines = [line for section in sections for line in section]
    return f"{_header(facts)}\n" + "\n".join(lines) + "\n"


def _header(facts: Facts) -> str:
    """The metadata the hub reads (huggingface.co/docs/hub/model-cards)."""
    document: dict[str, object] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": _tags(facts),
    }
    if facts.base_hub_id:
        document |= {"base_model": facts.base_hub_id, "base_model_relation": "quantized"}
    if datasets := _datasets(facts):
        document["datasets"] = datasets
    return f"---\n{yaml.safe_dump(document, sort_keys=False, allow_unicode=True)}---"


def _tags(facts: Facts) -> list[str]:
    tags = ["compressed-tensors", "llm-compressor", "calibrant"]
    if facts.base.experts:
        tags.append("moe")
    if facts.recipe:
        tags += ["awq"] if facts.recipe.smooth else []
        tags += sorted({f"{group.type}{group.bits}" for group in facts.recipe.groups})
    return tags


def _datasets(facts: Facts) -> list[str]:
    sources = facts.set.sources if facts.set else []
    return list(dict.fromkeys(source.hub_id for source in sources if source.hub_id))


def _introduction(facts: Facts) -> Iterator[str]:
    base, recipe = facts.base, facts.recipe
    source = facts.base_hub_id or base.name
    yield f"# {_plain(facts.name)}"
    yield ""
    experts = (
        f", {integer(base.moe_layers)} of {counted(base.layers, 'layer')} with "
        f"{counted(base.experts, 'expert')}, top-{base.top_k}"
        if base.experts
        else f", {counted(base.layers, 'layer')}, dense"
    )
    yield (
        f"{_plain(source)} ({base.architecture}, {integer(base.parameters)} parameters{experts}), "
        f"quantized with the recipe `{recipe.name if recipe else 'none'}` by Calibrant."
    )
    yield ""
    rows = [
        ("Size", _size(facts)),
        ("Mean KL to the original", _mean_kl(facts)),
        ("Perplexity on held-out rows", _perplexity(facts)),
        ("Verification", _verification(facts)),
        *((f"Gate: {check.gate}, {check.asked}",
           f"{check.verdict.value} ({check.measured or NOT_MEASURED})") for check in facts.checks),
    ]  # fmt: skip
    yield from _table(("", ""), rows)


def _size(facts: Facts) -> str:
    if facts.bytes_after is None or facts.ratio is None:
        return NOT_MEASURED
    return (
        f"{size(facts.bytes_after)}, {percent(facts.ratio, 0)} of the original's "
        f"{size(facts.bytes_before)}"
    )


def _mean_kl(facts: Facts) -> str:
    found = facts.evaluation
    if found is None:
        return NOT_MEASURED
    return (
        f"{number(found.kl_mean)} nats a token (95 % {number(found.kl_low)} to "
        f"{number(found.kl_high)}), {counted(found.rows, 'held-out row')}, "
        f"{counted(found.tokens, 'token')}"
    )


def _perplexity(facts: Facts) -> str:
    found = facts.evaluation
    if found is None:
        return NOT_MEASURED
    return f"{number(found.perplexity)}, the original {number(found.perplexity_base)}"


def _verification(facts: Facts) -> str:
    found = facts.verification
    if found is None:
        return NOT_MEASURED
    if not found.ok:
        return counted(len(found.problems), "problem")
    return f"{counted(found.tensors, 'tensor')} accounted for, {integer(found.quantized)} quantized"


def _quality(facts: Facts) -> Iterator[str]:
    yield "## What quantization changed"
    yield ""
    if facts.evaluation is None:
        yield f"KL divergence by slice: {NOT_MEASURED}."
        yield ""
    else:
        yield (
            "KL divergence of the next token's distribution from the original's, on rows that "
            "calibration did not see, with bootstrap intervals over rows."
        )
        yield ""
        slices = sorted(facts.evaluation.slices, key=lambda one: -one.kl_mean)
        means = [one.kl_mean for one in slices]
        yield from _table(
            ("Facet", "Slice", "Rows", "KL, nats a token", "95 % from", "to"),
            (
                (one.facet.replace("_", " "), facet_value(one.facet, one.value), integer(one.rows),
                 *(scaled(x, means) for x in (one.kl_mean, one.kl_low, one.kl_high)))
                for one in slices
            ),
        )  # fmt: skip
        if facts.few_rows:
            yield facts.few_rows
            yield ""
    yield from _layers(facts)


def _layers(facts: Facts) -> Iterator[str]:
    if not facts.layers:
        yield f"Error by layer: {NOT_MEASURED}."
        yield ""
        return
    drift = {one.layer: one for one in facts.evaluation.router_same} if facts.evaluation else {}
    yield "Error by layer: of the quantized weights, held against what smoothing made of them, of "
    yield "the layer's output on calibration and on held-out rows, and the share of held-out "
    yield "tokens that keep their experts."
    yield ""
    yield from _table(
        ("Layer", "Weights, relative MSE", "Output, SQNR dB", "Held-out output, SQNR dB",
         "Same experts", "Router KL, nats"),
        (
            (integer(one.layer), number(one.relative_mse), fixed(one.output_sqnr_db),
             fixed(one.held_out_sqnr_db),
             percent(drift[one.layer].share if one.layer in drift else None),
             number(drift[one.layer].kl if one.layer in drift else None))
            for one in facts.layers
        ),
    )  # fmt: skip


def _calibration(facts: Facts) -> Iterator[str]:
    yield "## Calibration set"
    yield ""
    if facts.set is None:
        yield f"The set's manifest is gone or damaged: its make-up is {NOT_MEASURED}."
        yield ""
        return
    yield (
        f"{_plain(facts.set.name)}: {counted(facts.set.rows, 'row')}, "
        f"{counted(facts.set.tokens, 'token')}, seed {facts.set.seed}, id `{facts.set.id}`. "
        "Fed tokens are the assistant's words in rows of that kind, without prompts and the "
        "template's marks; named tokens are those of rows of another kind whose prompt names it."
    )
    yield ""
    for facet in Facet:
        amounts = facts.set.facets.get(facet) or {}
        if not amounts:
            continue
        ordered = sorted(amounts.items(), key=lambda one: -one[1].fed_tokens)
        yield from _table(
            (facet.label, "Rows", "Fed tokens", "Named tokens"),
            (
                (label_of(facet, value), integer(found.rows), integer(found.fed_tokens),
                 integer(found.named_tokens))
                for value, found in ordered
            ),
        )  # fmt: skip
    yield from _table(
        ("Source", "Revision", "Licence"),
        (
            (source.hub_id or source.name, f"`{(source.revision or '')[:12]}`",
             source.license or "not said")
            for source in facts.set.sources
        ),
    )  # fmt: skip


def _coverage(facts: Facts) -> Iterator[str]:
    found = facts.coverage
    if not facts.base.experts:
        return
    yield "## Experts reached"
    yield ""
    if found is None:
        yield f"Routing of the calibration set: {_missing(facts, files.COVERAGE)}."
        yield ""
        return
    yield (
        f"By the model's own routing the set reaches {integer(found.experts_reached)} of "
        f"{counted(found.experts_total, 'expert')}; {integer(found.starved)} get fewer than "
        f"{counted(found.floor, 'token')} or less than a twentieth of their layer's mean. The "
        f"worst fed gets {counted(found.smallest, 'token')}, the best {integer(found.largest)}."
    )
    if found.unreached_words:
        yield ""
        yield found.unreached_words
    yield ""
    yield f"![Routed tokens by layer and expert]({COVERAGE_PICTURE})"
    yield ""


def _method(facts: Facts) -> Iterator[str]:
    yield "## Recipe"
    yield ""
    if facts.recipe is None:
        yield "The job had no recipe."
        yield ""
        return
    yield from (f"- {_plain(words)}" for words in facts.recipe_words)
    yield ""
    yield "```yaml"
    yield dump_recipe(facts.recipe).rstrip()
    yield "```"
    yield ""


def _serving(facts: Facts) -> Iterator[str]:
    if facts.path is None:
        return
    commands = serve_commands(facts.base.architecture, ".", facts.name)
    yield "## Serve"
    yield ""
    yield "In the directory of these files:"
    yield ""
    yield "```sh"
    yield commands.vllm
    yield commands.sglang
    yield "```"
    yield ""
    pages = ", ".join(f"<{page}>" for page in commands.read_from)
    if commands.has_parsers:
        yield f"The parsers are those that the engines' own pages give: {pages}."
    else:
        yield f"If the model calls tools or reasons, choose the engine's parsers for it: {pages}."
    yield "The commands follow the engines' documentation; they were not run with this checkpoint."
    yield ""


def _provenance(facts: Facts) -> Iterator[str]:
    yield "## Made with"
    yield ""
    yield f"Base model: {_plain(facts.base_hub_id or facts.base.name)}, "
    yield f"fingerprint of its configuration and tensors `{facts.base.fingerprint[:16]}`. "
    yield f"Job `{facts.job_id}`."
    yield ""
    if facts.versions:
        yield from _table(("Package", "Version"), facts.versions.items())
    else:
        yield f"Package versions: {_missing(facts, MANIFEST)}."


def _missing(facts: Facts, file: str) -> str:
    """Why there is nothing to say of what a file holds."""
    return f"cannot be read, {file} is damaged" if file in facts.damaged else NOT_MEASURED


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    numeric = [at > 0 and len(header) > 2 for at in range(len(header))]
    yield f"| {' | '.join(header)} |"
    yield f"|{'|'.join('---:' if right else '---' for right in numeric)}|"
    for row in rows:
        yield f"| {' | '.join(_plain(cell) for cell in row)} |"
    yield ""


def _plain(text: str) -> str:
    """A text that Markdown takes as it is, on one line."""
    line = " ".join(text.split())
    for sign in ("|", "<", "*", "_", "[", "]"):
        line = line.replace(sign, f"\\{sign}")
    return line

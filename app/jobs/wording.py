"""A step's figures in words, as a person reads them beside the step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from app.formatting import counted, duration, fixed, integer, number, size
from app.jobs.events import Progress
from app.jobs.preflight import Preflight

Figures = Mapping[str, Any]

# What belongs together is said together, under the first of its names.
SENTENCES: dict[tuple[str, ...], Callable[[Figures], str]] = {
    ("rows",): lambda f: counted(f["rows"], "row"),
    ("tokens",): lambda f: counted(f["tokens"], "token"),
    ("experts_reached", "experts_total"): lambda f: (
        f"{integer(f['experts_reached'])} of {counted(f['experts_total'], 'expert')} reached"
    ),
    ("layers",): lambda f: counted(f["layers"], "layer"),
    ("modules",): lambda f: counted(f["modules"], "weight"),
    ("mappings",): lambda f: counted(f["mappings"], "mapping"),
    ("sqnr_db",): lambda f: f"SQNR {fixed(f['sqnr_db'])} dB",
    ("kl_mean", "kl_low", "kl_high"): lambda f: (
        f"KL {number(f['kl_mean'])} nats a token "
        f"(95 % {number(f['kl_low'], 2)} to {number(f['kl_high'], 2)})"
    ),
    ("perplexity", "perplexity_base"): lambda f: (
        f"perplexity {number(f['perplexity'])}, was {number(f['perplexity_base'])}"
    ),
    ("files",): lambda f: counted(f["files"], "file"),
    ("bytes_after", "bytes_before"): lambda f: (
        f"{size(f['bytes_after'])}, was {size(f['bytes_before'])}"
    ),
    ("tensors", "quantized"): lambda f: (
        f"{counted(f['tensors'], 'tensor')} accounted for, {integer(f['quantized'])} quantized"
    ),
    ("errors",): lambda f: counted(f["errors"], "reason") + " to refuse it" if f["errors"] else "",
    ("audit_errors", "audit_warnings"): lambda f: (
        f"{counted(f['audit_errors'], 'error')}, {counted(f['audit_warnings'], 'warning')}"
    ),
    # Said by the step's own page, or by its state.
    ("set",): lambda _: "",
    ("ok",): lambda _: "",
}


def in_words(figures: Figures) -> list[str]:
    """What a step found; a figure nobody has words for is shown under its own name."""
    said: list[str] = []
    told: set[str] = set()
    for names, sentence in SENTENCES.items():
        if figures.keys() >= set(names):
            told |= set(names)
            said.append(sentence(figures))
    said += [f"{name.replace('_', ' ')} {_plain(figures[name])}" for name in figures.keys() - told]
    return [words for words in said if words]


def _plain(figure: Any) -> str:
    match figure:
        case bool():
            return "yes" if figure else "no"
        case int():
            return integer(figure)
        case float():
            return number(figure)
        case _:
            return str(figure)


def detail_of(progress: Progress) -> str | None:
    """What is at work within a step, in words."""
    if progress.source is not None:
        read = counted(progress.read or 0, "row")
        return f"{progress.source[:50]}: {read} read"
    if progress.layer is None:
        return None
    if not progress.batches:
        return f"layer {progress.layer}"
    if progress.batch == progress.batches:
        return f"layer {progress.layer}: searching scales"
    return f"layer {progress.layer}: batch {progress.batch} of {progress.batches}"


def preflight_in_words(found: Preflight) -> list[str]:
    """A preflight, line by line."""
    assumed = " (assumed)" if found.tokens_assumed else ""
    groups = ", ".join(f"{integer(n)} {name}" for name, n in found.modules_by_group.items())
    lines = [
        *(f"refused: {sentence}" for sentence in found.errors),
        *(f"note: {sentence}" for sentence in found.warnings),
        *(f"{each.pattern}: {counted(each.matches, 'module')}" for each in found.targets),
        f"quantized: {groups or 'nothing'}",
        *(f"left alone: {integer(n)} {kind}" for kind, n in found.unquantized.items()),
        *(f"smoothed: {integer(n)} {kind}" for kind, n in found.mappings_by_kind.items()),
    ]
    if found.disk_bytes:
        lines += [
            f"tokens: {integer(found.tokens)}{assumed}",
            f"memory: {size(found.ram_bytes)}; of an accelerator {size(found.vram_bytes)}, or "
            f"{size(found.vram_layerwise_bytes)} layer by layer",
            f"disk: {size(found.disk_bytes)}, the checkpoint {size(found.checkpoint_bytes)} of it",
            f"time: about {duration(found.seconds)} on this machine",
        ]
    return [*lines, "The job can run." if found.ok else "The job cannot run."]

"""The steps of a job, each a function from what is known so far to what it adds.

Every step returns the figures worth showing beside it, and writes its artifact into the job's
directory, whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from app.artifacts import write_model, write_text, write_whole
from app.calibration.leakage import refuse_leaks
from app.calibration.spec import SetSpec
from app.coverage.profile import Profile
from app.coverage.summary import concerns, starved
from app.errors import CalibrantError, RecipeRefused
from app.jobs import files
from app.jobs.states import Step
from app.quality.divergence import evaluation_of
from workers.engine.checkpoints.export import (
    Exported,
    export,
    exported_before,
    refuse_taken_destination,
)
from workers.engine.checkpoints.verification import verify
from workers.engine.device import release_memory
from workers.engine.formats.safetensors_files import Shards
from workers.engine.models.architecture import moe_layers
from workers.engine.models.loading import limits_of, load_tokenizer
from workers.engine.models.meta_model import meta_model
from workers.engine.models.provenance import source_of
from workers.engine.passes.evaluation import measure, refuse_unpredictable
from workers.engine.passes.forward import pack_for
from workers.engine.passes.observation import observe
from workers.engine.passes.routing import (
    RoutingCounts,
    RoutingTally,
    count_routing,
    write_coverage,
)
from workers.engine.preflight.refusals import refuse_too_large, refuse_unfit
from workers.engine.preflight.report import preflight
from workers.engine.quantization.resuming import kept_bytes, refuse_other_layers
from workers.engine.quantizing import quantized_in_memory
from workers.engine.rows.calibration_rows import CalibrationRows, ModelLimits, read_rows
from workers.engine.run import Run, needed

Figures = dict[str, Any]


def build(run: Run) -> Figures:
    """Refuse what cannot work, then build or read the set and the held-out rows."""
    spec = run.spec
    quantizes = Step.QUANTIZE in spec.steps
    if quantizes and spec.recipe is None:
        raise RecipeRefused("A quantize job needs a recipe.")
    refuse_unfit(spec.model, spec.recipe if quantizes else None)
    if quantizes and spec.recipe is not None:
        if spec.resume != "required":
            refuse_taken_destination(run.destination)
        kept = kept_bytes(spec, run.destination)
        refuse_too_large(spec.model, spec.recipe, run.destination, kept)
    tokenizer = load_tokenizer(spec.model)
    limits = _limits(spec.model)
    place = _built(run, spec.calibration)
    run.rows = read_rows(place, tokenizer, limits)
    if run.rows.concern is not None:
        run.notice(run.rows.concern, Step.BUILD, warning=True)
    if quantizes and spec.held_out is not None:
        held_out = _built(run, spec.held_out, held_out=True)
        refuse_leaks(place, held_out)
        run.held_out = read_rows(held_out, tokenizer, limits)
        refuse_unpredictable(run.held_out)
    if quantizes:
        refuse_other_layers(spec, run.rows, run.held_out)
        if _exported_before(run) is None:
            refuse_taken_destination(run.destination)
    run.result.set_id = run.rows.id
    run.result.set_rows = len(run.rows.rows)
    run.result.set_tokens = run.rows.tokens
    return {"set": run.rows.id, "rows": run.result.set_rows, "tokens": run.rows.tokens}


def preflight_step(run: Run) -> Figures:
    """Say what a quantize job would do and need; ``preflight.json``. What would refuse it is a
    finding, not a failure."""
    spec, recipe = run.spec, needed(run.spec.recipe)
    rows = spec.calibration
    if isinstance(rows, SetSpec):
        rows = spec.sets_dir / needed(run.rows).id
    found = preflight(spec.model, recipe, rows, run.destination)
    run.result.preflight = found
    write_model(spec.directory / "preflight.json", found)
    for sentence in (*found.errors, *found.warnings):
        run.notice(sentence, Step.PREFLIGHT, warning=True)
    return {
        "ok": found.ok,
        "modules": found.quantized_modules,
        "mappings": found.mappings,
        "errors": len(found.errors),
    }


def audit_step(run: Run) -> Figures:
    """Hold the set's labels against its content; ``audit.json`` beside the built set."""
    spec = run.spec
    if not isinstance(spec.calibration, SetSpec):
        raise CalibrantError("An audit needs a set that is built here, not a file of rows.")
    from app.audit.service import audit_built_set
    from app.calibration.built_set import load_built_set

    report = audit_built_set(
        load_built_set(spec.sets_dir / needed(run.rows).id),
        sources_dir=spec.sources_dir or spec.sets_dir.parent / "sources",
        index_dir=spec.sets_dir.parent / "index",
        progress=run.progress(Step.AUDIT, "rows"),
    )
    for finding in report.findings:
        if finding.severity != "note":
            run.notice(finding.sentence, Step.AUDIT, warning=True)
    return {
        "audit_errors": sum(finding.severity == "error" for finding in report.findings),
        "audit_warnings": sum(finding.severity == "warning" for finding in report.findings),
    }


def profile(run: Run) -> Figures:
    """Count which experts the set reaches by the model's own routing; ``coverage.npz``. What the
    original makes of held-out rows is kept, so that it need not be in memory to be compared."""
    rows = needed(run.rows)
    model = run.loaded_model()
    batches = pack_for(model, rows.rows)
    held_out = pack_for(model, run.held_out.rows) if run.held_out else []
    told, total = run.progress(Step.PROFILE, "batches"), len(batches) + len(held_out)
    routing = count_routing(model, batches, len(rows.rows), lambda done, _: told(done, total))
    coverage = _keep_coverage(run, files.COVERAGE, routing, rows)
    if run.held_out is not None:
        tally = RoutingTally(moe_layers(model), len(run.held_out.rows))
        done_before = len(batches)
        run.original = observe(
            model,
            held_out,
            lambda done, _: told(done_before + done, total),
            what="The original model",
            row_ids=[row.row_id for row in run.held_out.rows],
            scratch=run.spec.directory,
            tally=tally,
        )
        _keep_coverage(run, files.HELD_OUT_COVERAGE, tally.result(), run.held_out)
    run.result.experts_reached = routing.experts_reached
    run.result.experts_total = routing.experts_total
    run.result.experts_starved = len(starved(coverage))
    run.result.uncovered_experts = routing.uncovered
    if not routing.experts_total:
        run.notice("The model is dense: it has no experts to reach.", Step.PROFILE)
    for sentence in concerns(coverage):
        run.notice(sentence, Step.PROFILE, warning=True)
    return {
        "experts_reached": routing.experts_reached,
        "experts_total": routing.experts_total,
        "tokens": rows.tokens,
    }


def _keep_coverage(run: Run, name: str, routing: RoutingCounts, rows: CalibrationRows) -> Profile:
    file = run.spec.directory / name
    write_coverage(file, routing, rows, source_of(run.spec.model).fingerprint)
    return Profile.load(file)


def quantize_step(run: Run) -> Figures:
    """Smooth and quantize layer by layer; ``layers.json`` and ``modules.json``."""
    rows = needed(run.rows)
    recipe = needed(run.spec.recipe)
    run.quantized = quantized_in_memory(run, rows, recipe)
    plan = run.quantized.plan
    run.result.layers = run.quantized.layers
    _write_list(run.spec.directory / files.LAYERS, run.quantized.layers)
    _write_list(run.spec.directory / files.MODULES, run.quantized.modules)
    sqnr = [report.sqnr_db for report in run.quantized.layers]
    return {
        "modules": len(run.quantized.packed),
        "mappings": len(plan.mappings),
        "layers": len(sqnr),
        "sqnr_db": sum(sqnr) / len(sqnr),
    }


def evaluate_step(run: Run) -> Figures:
    """Compare with the original on held-out rows; ``evaluation.json``, and ``evaluation.npz`` with
    the rows. Without held-out rows nothing is measured, and the result says so."""
    if run.held_out is None:
        run.notice("There are no held-out rows, so the error was not measured.", Step.EVALUATE)
        return {}
    original = needed(run.original)
    progress = run.progress(Step.EVALUATE, "batches")
    quantized = observe(
        needed(run.model),
        original.batches,
        progress,
        what="The quantized model",
        row_ids=[row.row_id for row in run.held_out.rows],
        scratch=run.spec.directory,
    )
    rows = measure(original, quantized, run.held_out)
    run.original = None  # what it holds of RAM and disk is not needed beside the checkpoint
    found = evaluation_of(rows, run.spec.seed)
    run.result.evaluation = found
    write_whole(run.spec.directory / files.EVALUATED_ROWS, rows.save)
    write_model(run.spec.directory / files.EVALUATION, found)
    return {
        "kl_mean": found.kl_mean,
        "kl_low": found.kl_low,
        "kl_high": found.kl_high,
        "perplexity_base": found.perplexity_base,
        "perplexity": found.perplexity,
        "rows": found.rows,
    }


def export_step(run: Run) -> Figures:
    """Write the checkpoint, unless a run that was stopped later wrote it already."""
    exported = _exported_before(run) or export(
        model=needed(run.model),
        quantized=needed(run.quantized),
        source=run.spec.model,
        set_id=needed(run.rows).id,
        destination=run.destination,
        on_shard=run.progress(Step.EXPORT, "files"),
    )
    run.result.checkpoint = exported.directory
    run.result.files = exported.files
    run.result.bytes_before = Shards(run.spec.model).size_bytes
    run.result.bytes_after = Shards(exported.directory).size_bytes
    return {
        "files": len(exported.files),
        "bytes_before": run.result.bytes_before,
        "bytes_after": run.result.bytes_after,
    }


def _exported_before(run: Run) -> Exported | None:
    if run.spec.resume != "required":
        return None
    recipe, set_id = needed(run.spec.recipe), needed(run.rows).id
    return exported_before(run.destination, run.spec.model, recipe, set_id)


def verify_step(run: Run) -> Figures:
    """Check the checkpoint against the source; ``verification.json``.

    Raises CalibrantError when it does not hold, after writing what was found.
    """
    checkpoint = needed(run.result.checkpoint)
    run.model = run.quantized = None
    release_memory()
    found = verify(checkpoint, run.spec.model, run.progress(Step.VERIFY, "tensors"))
    run.result.verification = found
    write_model(run.spec.directory / "verification.json", found)
    if not found.ok:
        first = found.problems[0]
        raise CalibrantError(
            f"The checkpoint does not verify: {first.tensor}: {first.problem} "
            f"({len(found.problems):,} problems in verification.json)"
        )
    return {"ok": found.ok, "tensors": found.tensors, "quantized": found.quantized}


STEP_FUNCTIONS: dict[Step, Callable[[Run], Figures]] = {
    Step.BUILD: build,
    Step.PROFILE: profile,
    Step.QUANTIZE: quantize_step,
    Step.EVALUATE: evaluate_step,
    Step.EXPORT: export_step,
    Step.VERIFY: verify_step,
    Step.PREFLIGHT: preflight_step,
    Step.AUDIT: audit_step,
}


def _built(run: Run, wanted: SetSpec | Path, *, held_out: bool = False) -> Path:
    """Where the rows lie: a composition is built first."""
    if isinstance(wanted, Path):
        return wanted
    from app.calibration.building import build_set

    built = build_set(
        wanted,
        tokenizer_dir=run.spec.model,
        sets_dir=run.spec.sets_dir,
        sources_dir=run.spec.sources_dir,
        entries=run.spec.sources,
        revisions=run.spec.revisions,
        progress=run.progress(Step.BUILD, "rows"),
        fetching=run.fetching(Step.BUILD),
    )
    _tell_shortfalls(run, built.warnings, held_out=held_out)
    return built.directory


def _tell_shortfalls(run: Run, warnings: list[str], *, held_out: bool) -> None:
    """What the set lacks, one warning each. What the held-out part lacks is no fault of the set,
    and the evaluation counts the rows of every slice: that it lacks something is enough."""
    if held_out and warnings:
        message = f"{len(warnings)} languages or domains have fewer held-out rows than asked."
        run.notice(message, Step.BUILD)
    elif not held_out:
        for warning in warnings:
            run.notice(warning, Step.BUILD, warning=True)


def _limits(directory: Path) -> ModelLimits:
    return limits_of(meta_model(directory))


def _write_list(file: Path, items: list[Any]) -> None:
    documents = [item.model_dump() for item in items if isinstance(item, BaseModel)]
    write_text(file, json.dumps(documents, indent=1) + "\n")

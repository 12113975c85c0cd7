"""The engine's commands: ``coverage``, ``select``, ``preflight``, ``quantize``, ``evaluate``,
``verify``, ``export-recipe``.

They run in this process and need no server. With ``--json`` one document goes to stdout; progress
and everything else goes to stderr. torch and transformers are imported inside the commands, so
that ``--help`` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.console import Json, say, tell, wide, write
from app.coverage.choosing import Aim
from app.facets import Facet
from app.formatting import percent
from app.jobs import files
from app.jobs.states import JobKind
from app.jobs.wording import preflight_in_words
from app.recipes.schema import DEFAULT_PRESET
from workers.bars import bar
from workers.in_process import (
    events_beside,
    kept_beside,
    refusals,
    run_here,
    spec_of,
    working_directory,
)
from workers.recipe_option import RecipeOption, recipe_named

if TYPE_CHECKING:
    from app.quality.evaluated_rows import EvaluatedRows
    from workers.engine.rows.calibration_rows import CalibrationRows

app = typer.Typer(help="Quantize and check models on this machine.", no_args_is_help=True)

Model = Annotated[Path, typer.Option(help="The model's directory.")]
Rows = Annotated[
    Path, typer.Option("--set", help="A built set's directory, or a JSONL of text or messages.")
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, help="Threads to compute with; by default OMP_NUM_THREADS, else the free cores."
    ),
]


@app.command()
def coverage(
    model: Model,
    set_: Rows,
    by: Annotated[Facet | None, typer.Option(help="Count for each value of a facet too.")] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another set or JSONL file to compare with.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Keep coverage.npz in this directory.")] = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Count the tokens of a set that are routed to each expert."""
    from app.coverage.comparison import compared_documents
    from app.coverage.profile import Profile
    from app.coverage.summary import summarise

    with refusals(), working_directory(out) as directory:
        if against is not None:
            _rows_for(model, against)  # refused before the first pass, not after it
        spec = spec_of(JobKind.PROFILE, directory, model, set_, threads=threads)
        run_here(spec)
        profile = Profile.load(directory / files.COVERAGE)
        document = summarise(profile, by.value if by else None)
        if against is not None:
            with working_directory(None) as beside:
                run_here(spec_of(JobKind.PROFILE, beside, model, against, threads=threads))
                document |= compared_documents(profile, Profile.load(beside / files.COVERAGE))
    if json:
        say(document)
        return
    tell(
        wide("tokens", f"{document['tokens']:,}"),
        wide("top-k", str(document["top_k"])),
        wide(
            "experts", f"{document['experts_reached']:,} of {document['experts_total']:,} reached"
        ),
        wide("starved", f"{len(document['starved']):,} experts"),
    )
    if document["note"]:
        tell(document["note"])
    if against is not None:
        tell(
            wide(
                "moved", f"{percent(document['moved'])} of routed tokens go to other experts there"
            )
        )


@app.command()
def select(
    model: Model,
    pool: Annotated[
        str,
        typer.Option(
            help="A built set's directory, a JSONL file, or a set's id, YAML file or 'starter'."
        ),
    ],
    budget: Annotated[int, typer.Option(min=1, help="Tokens to choose, at most.")],
    floor: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens wanted for each expert; by default an even share."),
    ] = None,
    by: Annotated[Aim, typer.Option(help="What rows are chosen for.")] = "experts",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random rows beside them.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Write the chosen rows of a JSONL pool to this file.")
    ] = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Choose rows of a pool that raise the worst-fed experts most, and save them as a set."""
    from app.coverage.choosing import Wish
    from app.coverage.profile import Profile
    from workers.selecting import choice, pool_named

    with refusals(), working_directory(None) as directory:
        found = pool_named(pool, model, out)
        run_here(spec_of(JobKind.PROFILE, directory, model, found.rows, threads=threads))
        wish = Wish(budget=budget, floor=floor, aim=by, seed=seed)
        document = choice(Profile.load(directory / files.COVERAGE), found, wish, out)
    if json:
        say(document)
        return
    worst = document["worst1pct_tokens"]
    tell(
        wide("set", document["id"]),
        wide("rows", f"{document['rows']:,}"),
        wide("tokens", f"{document['tokens']:,}"),
        wide("worst 1 %", f"{worst['selected']:,.1f} tokens, {worst['random']:,.1f} at random"),
    )


@app.command()
def preflight(
    model: Model,
    recipe: RecipeOption = DEFAULT_PRESET,
    set_: Annotated[
        Path | None, typer.Option("--set", help="A built set's directory, or a JSONL file.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the checkpoint would go.")] = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Say what a job would do and need, without loading a weight. Exits 2 when it cannot run."""
    with refusals():
        from workers.engine.device import set_threads
        from workers.engine.preflight.report import preflight as look

        set_threads(threads)
        found = look(model, recipe_named(recipe), set_, out)
    if json:
        say(found.model_dump(mode="json"))
    else:
        tell(*preflight_in_words(found))
    if not found.ok:
        raise typer.Exit(2)


@app.command()
def quantize(
    model: Model,
    set_: Rows,
    out: Annotated[Path, typer.Option(help="Where the checkpoint goes; must not be there yet.")],
    recipe: RecipeOption = DEFAULT_PRESET,
    held_out: Annotated[
        Path | None, typer.Option(help="Rows to measure the error on: a set or a JSONL file.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on after the last finished layer of a run that was stopped."
        ),
    ] = False,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Quantize a model with AWQ, export the checkpoint and verify it.

    Finished layers are kept beside OUT until the checkpoint is whole.
    """
    with refusals(), kept_beside(out, resume) as directory:
        spec = spec_of(JobKind.QUANTIZE, directory, model, set_, threads=threads)
        spec.recipe, spec.checkpoint = recipe_named(recipe), out.resolve()
        spec.held_out = held_out.resolve() if held_out else None
        spec.resume = "required" if resume else "never"
        events = events_beside(out)
        result = run_here(spec, events)
    if json:
        say({**result.model_dump(mode="json"), "events": str(events)})
        return
    tell(
        wide("checkpoint", str(result.checkpoint)),
        wide("size", f"{(result.bytes_after or 0) / 1e6:,.1f} MB, was "
             f"{(result.bytes_before or 0) / 1e6:,.1f} MB"),
        wide("mean KL", f"{result.evaluation.kl_mean:.5f} nats a token"
             if result.evaluation else "not measured"),
        wide("time", f"{result.seconds:,.1f} s"),
    )  # fmt: skip


@app.command()
def evaluate(
    base: Annotated[Path, typer.Option(help="The original model's directory.")],
    checkpoint: Annotated[Path, typer.Option(help="The quantized checkpoint's directory.")],
    set_: Rows,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Keep evaluation.json and the rows in this directory, to compare."),
    ] = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Measure how far a checkpoint is from its original on held-out rows."""
    with refusals():
        from app.artifacts import require_writable, write_model, write_whole
        from app.quality.divergence import evaluation_of
        from workers.engine.device import set_threads

        set_threads(threads)
        if out is not None:
            require_writable(out)
        kept = _evaluated(base, checkpoint, set_)
        found = evaluation_of(kept, seed)
        if out is not None:
            write_whole(out / files.EVALUATED_ROWS, kept.save)
            write_model(out / files.EVALUATION, found)
    if json:
        say(found.model_dump(mode="json"))
        return
    tell(
        wide("mean KL", f"{found.kl_mean:.5f} ({found.kl_low:.5f} to {found.kl_high:.5f})"),
        wide("perplexity", f"{found.perplexity:,.3f}, was {found.perplexity_base:,.3f}"),
        wide("rows", f"{found.rows:,}"),
    )


@app.command()
def verify(
    checkpoint: Annotated[Path, typer.Argument(help="The quantized checkpoint's directory.")],
    source: Annotated[Path, typer.Option(help="The directory of the model it was made from.")],
    json: Json = False,
) -> None:
    """Check every tensor of a checkpoint against its source. Exits 1 when something is wrong."""
    with refusals():
        from workers.engine.checkpoints.verification import verify as check

        with bar("Verifying") as advance:
            found = check(checkpoint, source, advance)
    if json:
        say(found.model_dump(mode="json", exclude_defaults=True))
    else:
        tell(*(f"{fault.tensor}: {fault.problem}" for fault in found.problems))
        tell(wide("tensors", f"{found.tensors:,}"), wide("quantized", f"{found.quantized:,}"))
        tell(*(wide("not checked", sentence) for sentence in found.unchecked))
        holds = "What was checked holds." if found.unchecked else "The checkpoint holds."
        tell(holds if found.ok else "The checkpoint does not hold.")
    if not found.ok:
        raise typer.Exit(1)


@app.command("export-recipe")
def export_recipe(
    model: Model,
    recipe: RecipeOption = DEFAULT_PRESET,
    out: Annotated[Path | None, typer.Option(help="Write it here, not to stdout.")] = None,
) -> None:
    """Write a recipe as YAML that stock llmcompressor runs on this model."""
    with refusals():
        from app.artifacts import write_text
        from app.recipes.llmcompressor import to_yaml
        from workers.engine.models.meta_model import meta_model
        from workers.engine.plan.plan import plan_of, refuse_wrong_in_stock

        tree = meta_model(model)
        plan = plan_of(tree, recipe_named(recipe))
        refuse_wrong_in_stock(tree, plan)
        names = [name for name, _ in tree.named_modules()]
        text = to_yaml(plan.recipe, plan.mappings, plan.modules, names)
        if out is None:
            write(text)
        else:
            write_text(out, text)


def _rows_for(directory: Path, rows: Path) -> CalibrationRows:
    """Rows as the model takes them; no weight is loaded for it."""
    from workers.engine.models.loading import limits_of, load_tokenizer
    from workers.engine.models.meta_model import meta_model
    from workers.engine.preflight.refusals import refuse_unfit
    from workers.engine.rows.calibration_rows import read_rows

    refuse_unfit(directory, None)
    return read_rows(rows, load_tokenizer(directory), limits_of(meta_model(directory)))


def _evaluated(base: Path, checkpoint: Path, set_: Path) -> EvaluatedRows:
    """A checkpoint against its original, row by row; one of them in memory at a time."""
    from workers.engine.checkpoints.verification import refuse_not_reloadable
    from workers.engine.device import release_memory
    from workers.engine.models.loading import load_checkpoint
    from workers.engine.models.original import refuse_another_original
    from workers.engine.passes.evaluation import measure, refuse_unpredictable
    from workers.engine.passes.forward import pack_for
    from workers.engine.passes.observation import observe
    from workers.engine.run import load_for_computing

    rows = _rows_for(base, set_)
    refuse_unpredictable(rows)
    refuse_another_original(checkpoint, base)
    refuse_not_reloadable(checkpoint, base)
    model = load_for_computing(base)
    batches, ids = pack_for(model, rows.rows), [row.row_id for row in rows.rows]
    with bar("Original") as advance:
        original = observe(model, batches, advance, what="The original model", row_ids=ids)
    kind = (model.dtype, model.device)
    del model
    release_memory()
    with bar("Quantized") as advance:
        loaded = load_checkpoint(checkpoint, *kind)
        quantized = observe(loaded, batches, advance, what="The checkpoint", row_ids=ids)
    return measure(original, quantized, rows)

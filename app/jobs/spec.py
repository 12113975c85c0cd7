"""What a job is given and what it gives back: the contract between the queue and the engine.

The supervisor writes the spec as ``spec.json`` in the job's directory; the child process reads
nothing else, so a job runs the same from the queue and from the command line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.calibration.spec import SetSpec
from app.jobs.preflight import Preflight
from app.jobs.states import STEPS, JobKind, Step
from app.recipes.schema import Recipe
from app.sources.entry import SourceEntry

Resume = Literal["never", "if_possible", "required"]


class JobSpec(BaseModel):
    """Everything a job needs. Paths are absolute.

    ``calibration`` is a composition to build, or the path of a built set or a JSONL file;
    ``held_out`` likewise, used by the evaluation alone. ``sources_dir`` is where fetched sources
    are, by default beside ``sets_dir``; ``sources`` are the entries of those the composition uses,
    fetched where they are not there, and ``revisions`` what each is held to.

    Finished layers are kept inside the job's directory. With ``resume`` those that are there, or
    else those in ``layers_from`` of an earlier job, are used: ``required`` refuses when they were
    made of something else, ``if_possible`` then starts again and says so, ``never`` starts again.
    """

    model_config = ConfigDict(extra="forbid")

    job_id: str
    kind: JobKind
    directory: Path
    sets_dir: Path
    sources_dir: Path | None = None
    sources: list[SourceEntry] = []
    revisions: dict[str, str] = {}
    model: Path
    calibration: SetSpec | Path
    held_out: SetSpec | Path | None = None
    recipe: Recipe | None = None
    checkpoint: Path | None = None
    layers_from: Path | None = None
    resume: Resume = "never"
    seed: int = 0
    threads: int | None = Field(default=None, ge=1)

    @property
    def layers_directory(self) -> Path:
        """Where finished layers are kept."""
        return self.directory / "layers"

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps this kind of job takes, in order."""
        return STEPS[self.kind]


class LayerReport(BaseModel):
    """Weight error of one decoder layer: mean squared error over mean square of its weights as
    smoothing left them, and the same as a signal to quantization noise ratio in dB. ``output_…`` is
    the same of the layer's output on the first calibration batches, its input being exact, and
    ``held_out_…`` on the first held-out batches; None where it was not measured."""

    layer: int
    relative_mse: float
    sqnr_db: float
    output_relative_mse: float | None = None
    output_sqnr_db: float | None = None
    held_out_relative_mse: float | None = None
    held_out_sqnr_db: float | None = None


class ModuleReport(BaseModel):
    """The weight error of one quantized weight, by its module's name after linearization
    (``model.layers.3.mlp.experts.7.up_proj``). ``modules.json`` of a job is a list of these.

    ``rows`` and ``columns`` are its shape, ``signal`` the sum of squares of the weights before they
    were rounded, so that errors add up over modules; None in results of before they were kept."""

    layer: int
    relative_mse: float
    sqnr_db: float
    module: str
    rows: int | None = None
    columns: int | None = None
    signal: float | None = None


class SliceDivergence(BaseModel):
    """KL divergence (nats per token, mean over tokens of the slice) with a 95 % bootstrap
    interval over rows. ``tokens`` are those predicted, ``router_same`` is the share of them, over
    all layers, whose experts stayed the same; None where it was not measured."""

    facet: str
    value: str
    rows: int
    tokens: int | None = None
    kl_mean: float
    kl_low: float
    kl_high: float
    router_same: float | None = None


class RouterAgreement(BaseModel):
    """Share of tokens whose top-k set of experts is the same before and after, in one layer, and
    the mean KL of the router's probabilities (nats; None where its router gives no logits)."""

    layer: int
    share: float
    kl: float | None = None


class Evaluation(BaseModel):
    """The quantized model against the original on held-out rows (``calibrant evaluate``).
    ``same_top`` is the share of tokens for which both find the same next token likeliest."""

    rows: int
    tokens: int
    kl_mean: float
    kl_low: float
    kl_high: float
    perplexity_base: float
    perplexity: float
    same_top: float | None = None
    slices: list[SliceDivergence]
    router_same: list[RouterAgreement]


class Problem(BaseModel):
    """Something wrong with one tensor of a checkpoint."""

    tensor: str
    problem: str


class Verification(BaseModel):
    """What ``calibrant verify`` found. ``tensors`` counts the source's tensors accounted for,
    ``quantized`` those of them that are packed; ``unchecked`` says what could not be looked at, a
    sentence each."""

    ok: bool
    tensors: int
    quantized: int
    problems: list[Problem]
    unchecked: list[str] = []


class CheckpointFile(BaseModel):
    """One file of an exported checkpoint."""

    name: str
    size_bytes: int
    sha256: str


class JobResult(BaseModel):
    """What a job leaves behind; each part is None until its step is done."""

    set_id: str | None = None
    set_rows: int | None = None
    set_tokens: int | None = None
    experts_reached: int | None = None
    experts_total: int | None = None
    experts_starved: int | None = None
    preflight: Preflight | None = None
    layers: list[LayerReport] = []
    uncovered_experts: list[dict[str, Any]] = []
    evaluation: Evaluation | None = None
    verification: Verification | None = None
    checkpoint: Path | None = None
    files: list[CheckpointFile] = []
    bytes_before: int | None = None
    bytes_after: int | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0

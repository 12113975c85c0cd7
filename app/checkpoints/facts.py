"""All that is known of a job's result, gathered once: what the report and the model card say, and
nothing else. What was not measured is None or empty, and both say so."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, computed_field
from sqlmodel import Session

from app.base_models.architecture import ModelSummary
from app.base_models.service import get_model, summary_of
from app.calibration.built_set import FacetAmount, load_built_set
from app.checkpoints.manifest import MANIFEST, package_versions
from app.coverage.profile import Profile, ProfileRefused
from app.coverage.service import profile_of
from app.coverage.summary import DEFAULT_FLOOR, dead, experts_reached, starved
from app.coverage.unreached import by_layer, treatment
from app.errors import CheckpointRefused, Refused
from app.facets import Facet
from app.jobs import files
from app.jobs.models import Job
from app.jobs.service import get_job
from app.jobs.spec import Evaluation, JobResult, JobSpec, LayerReport, Verification
from app.quality.divergence import few_rows
from app.quality.gates import Check, judge
from app.quality.service import get_gates
from app.recipes.schema import Recipe
from app.recipes.views import in_words
from app.settings import Settings
from app.sources.entry import HubOrigin

# Where the hub's own cache keeps a model: models--NAME--MODEL/snapshots/COMMIT.
HUB_CACHE = re.compile(r"/models--([^/]+?)--([^/]+)/snapshots/[^/]+$")


class SourceFact(BaseModel):
    """A source the set is made of: ``hub_id`` where it is a data set of the hub."""

    name: str
    revision: str | None
    hub_id: str | None
    license: str | None


class SetFacts(BaseModel):
    """The built set: amounts by facet and value as its manifest has them."""

    id: str
    name: str
    rows: int
    tokens: int
    seed: int
    facets: dict[Facet, dict[str, FacetAmount]]
    sources: list[SourceFact]


class CoverageFacts(BaseModel):
    """How far the set reached; ``starved`` experts got fewer tokens than ``floor``, ``unreached``
    none, by layer and number; ``treated`` is what the recipe did with each of those."""

    experts_reached: int
    experts_total: int
    starved: int
    floor: int
    smallest: int
    largest: int
    unreached: list[tuple[int, int]]
    treated: str | None

    @property
    def unreached_words(self) -> str | None:
        """A sentence that names the experts no token reached; None where there are none."""
        if not self.unreached:
            return None
        named = f"Reached by no token: {by_layer(self.unreached)}."
        return f"{named} Each of them is {self.treated}." if self.treated else named


class Facts(BaseModel):
    """A job's result. ``base_hub_id`` is known when the base model lies in the hub's cache.
    ``damaged`` are the files that could not be read, without their place: who is shown a report
    need not know it."""

    job_id: str
    name: str
    state: str
    base: ModelSummary
    base_hub_id: str | None
    base_is_there: bool
    recipe: Recipe | None
    recipe_words: list[str]
    set: SetFacts | None
    set_id: str
    coverage: CoverageFacts | None
    layers: list[LayerReport]
    evaluation: Evaluation | None
    checks: list[Check]
    verification: Verification | None
    bytes_before: int | None
    bytes_after: int | None
    seconds: float | None
    files: int
    path: str | None
    versions: dict[str, str]
    damaged: list[str]

    @computed_field
    @property
    def ratio(self) -> float | None:
        """The checkpoint's size over its source's."""
        if not self.bytes_before or self.bytes_after is None:
            return None
        return self.bytes_after / self.bytes_before

    @property
    def few_rows(self) -> str:
        """What is to be said of slices with few held-out rows; empty where there are none."""
        return few_rows(self.evaluation.slices) if self.evaluation else ""


def facts_of(session: Session, settings: Settings, job_id: str) -> Facts:
    """What is known of a job's result. Raises NotFound."""
    job = get_job(session, job_id)
    spec = JobSpec.model_validate(job.spec)
    result = JobResult.model_validate(job.result) if job.result else JobResult()
    model = get_model(session, job.model_id)
    cached = HUB_CACHE.search(model.path)
    damaged: list[str] = []
    return Facts(
        job_id=job.id,
        name=job.name,
        state=job.state,
        base=summary_of(model).model_copy(update={"name": model.name}),
        base_hub_id=f"{cached[1]}/{cached[2]}" if cached else None,
        base_is_there=(Path(model.path) / "config.json").is_file(),
        recipe=spec.recipe,
        recipe_words=in_words(spec.recipe) if spec.recipe else [],
        set=_set_facts(settings, job, spec, result),
        set_id=job.set_id,
        coverage=_coverage_facts(settings, job.id, spec.recipe, damaged),
        layers=result.layers,
        evaluation=result.evaluation,
        checks=judge(get_gates(session), result.evaluation, result.verification),
        verification=result.verification,
        bytes_before=result.bytes_before,
        bytes_after=result.bytes_after,
        seconds=job.ran_for(job.finished_at) if job.finished_at else None,
        files=len(result.files),
        path=str(result.checkpoint) if result.checkpoint else None,
        versions=_versions(result.checkpoint, damaged),
        damaged=damaged,
    )


def coverage_profile(settings: Settings, job_id: str) -> Profile | None:
    """A job's coverage, None where it has none or its model has no experts."""
    if not (settings.jobs_dir / job_id / files.COVERAGE).is_file():
        return None
    profile = profile_of(settings, job_id)
    return profile if profile.experts else None


def _coverage_facts(
    settings: Settings, job_id: str, recipe: Recipe | None, damaged: list[str]
) -> CoverageFacts | None:
    try:
        profile = coverage_profile(settings, job_id)
    except ProfileRefused:
        damaged.append(files.COVERAGE)
        return None
    if profile is None:
        return None
    reached, total = experts_reached(profile)
    counts, missed = profile.layer_counts, dead(profile)
    return CoverageFacts(
        experts_reached=reached,
        experts_total=total,
        starved=len(starved(profile, DEFAULT_FLOOR)),
        floor=DEFAULT_FLOOR.min_tokens,
        smallest=int(counts.min()),
        largest=int(counts.max()),
        unreached=missed,
        treated=treatment(recipe, missed) if recipe else None,
    )


def _set_facts(settings: Settings, job: Job, spec: JobSpec, result: JobResult) -> SetFacts | None:
    """The set as it was built; None when its directory is gone."""
    try:
        built = load_built_set(settings.sets_dir / (result.set_id or job.set_id))
    except Refused:
        return None
    entries = {entry.name: entry for entry in spec.sources}
    sources = []
    for found in built.identity.get("sources", []):
        entry = entries.get(found["name"])
        origin = entry.origin if entry else None
        sources.append(
            SourceFact(
                name=found["name"],
                revision=found.get("revision"),
                hub_id=origin.id if isinstance(origin, HubOrigin) else None,
                license=entry.license if entry else None,
            )
        )
    return SetFacts(
        id=built.id,
        name=built.name,
        rows=built.rows,
        tokens=built.tokens,
        seed=int(built.identity["seed"]),
        facets=built.facets,
        sources=sources,
    )


def _versions(checkpoint: Path | None, damaged: list[str]) -> dict[str, str]:
    """The packages that made the checkpoint, as its manifest has them."""
    try:
        return package_versions(checkpoint)
    except CheckpointRefused:
        damaged.append(MANIFEST)
        return {}

"""The report of a job: its facts on one page, with the picture of its coverage."""

from __future__ import annotations

from pydantic import BaseModel
from sqlmodel import Session

from app.checkpoints.facts import Facts, coverage_profile, facts_of
from app.checkpoints.serving import serve_commands
from app.coverage.picture import coverage_svg
from app.jobs.spec import RouterAgreement
from app.recipes.files import dump_recipe
from app.settings import Settings


class ReportView(BaseModel):
    """What a job's report shows; ``picture`` is an SVG, None without coverage."""

    facts: Facts
    recipe_yaml: str | None
    drift: dict[int, RouterAgreement]
    picture: str | None
    vllm: str | None
    sglang: str | None


def report_view(session: Session, settings: Settings, job_id: str) -> ReportView:
    """The report of a job, finished or not. Raises NotFound."""
    facts = facts_of(session, settings, job_id)
    commands = serve_commands(facts.base.architecture, facts.path or ".", facts.name)
    router = facts.evaluation.router_same if facts.evaluation else []
    return ReportView(
        facts=facts,
        recipe_yaml=dump_recipe(facts.recipe) if facts.recipe else None,
        drift={one.layer: one for one in router},
        picture=coverage_picture(settings, job_id) if facts.coverage else None,
        vllm=commands.vllm if facts.path else None,
        sglang=commands.sglang if facts.path else None,
    )


def coverage_picture(settings: Settings, job_id: str) -> str | None:
    """The heatmap of a job's coverage as an SVG, None where it has none."""
    profile = coverage_profile(settings, job_id)
    if profile is None:
        return None
    title = "Routed calibration tokens by layer and expert"
    return coverage_svg(profile.layer_counts, profile.layers, title)

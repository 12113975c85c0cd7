"""``calibrant compare``: two jobs or more side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.comparison.views import ComparisonView, comparison_of_directories, comparison_view
from app.console import Json, installed, say, tell, wide
from app.jobs import files
from app.remote import ask, server

app = typer.Typer()


@app.command()
def compare(
    jobs: Annotated[
        list[str],
        typer.Argument(help="Ids of jobs, or directories that `evaluate --out` wrote."),
    ],
    json: Json = False,
) -> None:
    """Hold jobs side by side: settings, coverage, error by layer, KL by slice with paired
    intervals. Every later one is held against the first."""
    view = _view(jobs)
    if json:
        say(view.model_dump(mode="json"))
        return
    for subject in view.subjects:
        kl = f"mean KL {subject.evaluation.kl_mean:.5f}" if subject.evaluation else "not measured"
        tell(wide(subject.letter, f"{subject.id}  {subject.name}  {subject.recipe or ''}  {kl}"))
    for setting in view.settings:
        tell(wide("differs", f"{setting.name}: {' | '.join(v or '-' for v in setting.values)}"))
    for pair in view.pairs:
        tell(*([pair.problem] if pair.problem else pair.sentences))
    for method in dict.fromkeys(pair.method for pair in view.pairs if pair.method):
        tell(method)


def _view(jobs: list[str]) -> ComparisonView:
    directories = [Path(job) for job in jobs]
    if all((directory / files.EVALUATED_ROWS).is_file() for directory in directories):
        return comparison_of_directories(directories)
    if server():
        return ask("GET", "/compare", ComparisonView, jobs=",".join(jobs))
    with installed() as (session, settings):
        return comparison_view(session, settings, list(dict.fromkeys(jobs)))

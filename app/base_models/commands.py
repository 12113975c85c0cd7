"""``calibrant models``: the base models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.base_models import deletion, service
from app.console import Json, installed, say, tell, wide

app = typer.Typer(help="Base models: what is quantized.", no_args_is_help=True)


@app.command()
def add(
    path: Annotated[Path, typer.Argument(help="A model directory.")], json: Json = False
) -> None:
    """Add a model and say what its files say of it."""
    with installed() as (session, _):
        record = service.add_model(session, path)
    if json:
        say({"id": record.id, **record.summary})
        return
    summary = service.summary_of(record)
    tell(
        wide("id", record.id),
        wide("architecture", summary.architecture),
        wide("layers", f"{summary.layers}, {summary.moe_layers} of them with experts"),
        wide("experts", f"{summary.experts or 0}, top-{summary.top_k or 0}"),
        wide("parameters", f"{summary.parameters:,}"),
    )


@app.command("list")
def list_(json: Json = False) -> None:
    """Every model that was added."""
    with installed() as (session, _):
        records = service.list_models(session)
    if json:
        say([{"id": record.id, "path": record.path, **record.summary} for record in records])
        return
    tell(*(wide(record.id, f"{record.name}  {record.path}") for record in records))


@app.command()
def delete(model: Annotated[str, typer.Argument(help="A model's id.")], json: Json = False) -> None:
    """Take a model off the list, its directory stays; refused while a job that used it is kept."""
    with installed() as (session, _):
        deleted = deletion.delete(session, model)
    if json:
        say(deleted.model_dump(mode="json"))
    else:
        tell(f"{deleted.id} is off the list")

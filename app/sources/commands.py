"""``calibrant sources``: where rows come from."""

from __future__ import annotations

import typer

from app.console import Json, say, tell, wide
from app.settings import get_settings
from app.sources.catalogue import list_sources

app = typer.Typer(help="Sources of calibration rows.", no_args_is_help=True)


@app.callback()
def sources() -> None:
    """Sources of calibration rows."""


@app.command("list")
def list_(json: Json = False) -> None:
    """The packs of the starter corpus; those not in use are marked."""
    in_use = get_settings().corpus_packs
    packs = list_sources()
    if json:
        say([{**pack.model_dump(mode="json"), "in_use": pack.name in in_use} for pack in packs])
        return
    for pack in packs:
        mark = "" if pack.name in in_use else "  (not in use)"
        tell(wide(pack.name, f"{pack.rows:>6,} rows  {pack.title}{mark}"))

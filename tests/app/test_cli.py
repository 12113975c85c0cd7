"""What ``--help`` shows: every option explained, the commands in the order of the work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from app.cli import add_worker_commands, app

add_worker_commands()
ROOT: Any = typer.main.get_command(app)


def leaves(command: Any, name: str = "calibrant") -> Iterator[tuple[str, Any]]:
    for inner, one in getattr(command, "commands", {}).items():
        yield from leaves(one, f"{name} {inner}")
    if not hasattr(command, "commands"):
        yield name, command


def test_every_command_and_every_option_is_explained() -> None:
    commands = dict(leaves(ROOT))
    assert len(commands) > 40
    unexplained = [
        f"{name} {one.name}" for name, command in commands.items()
        for one in command.params if not one.help
    ]  # fmt: skip
    assert unexplained == []
    assert [name for name, command in commands.items() if not command.help] == []


def test_commands_are_in_the_order_of_the_work() -> None:
    for group in (ROOT, ROOT.commands["sets"]):
        shown = group.list_commands(None)
        assert set(shown) == set(group.order), "a command has no place in the order"
    work = ["sources", "sets", "coverage", "quantize", "evaluate", "verify"]
    assert [name for name in ROOT.list_commands(None) if name in work] == work

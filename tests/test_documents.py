"""The documents say what is there: a setting, a target or a page without a word is a bug."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from typer.main import get_command

from app import cli
from app.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_in_the_readme(name: str) -> None:
    variables = {"database_url": "DATABASE_URL", "redis_url": "REDIS_URL"}
    assert f"`{variables.get(name, f'CALIBRANT_{name.upper()}')}`" in README


def test_every_make_target_the_documents_name_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    documents = README + ARCHITECTURE + (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`?make ([a-z-]+)", documents))
    assert named <= targets


@pytest.mark.parametrize(
    "room", sorted(p.name for p in (ROOT / "app").iterdir() if (p / "__init__.py").is_file())
)
def test_every_room_is_in_the_drawing(room: str) -> None:
    assert f"`app/{room}/`" in ARCHITECTURE


def test_every_file_the_documents_link_to_exists() -> None:
    for document in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)\)", (ROOT / document).read_text()):
            assert (ROOT / target).exists(), f"{document} links to {target}"


@pytest.fixture(scope="module")
def commands() -> dict[str, set[str]]:
    """The options of every command, by its name: ``sets build``."""
    cli.add_worker_commands()
    found: dict[str, set[str]] = {}

    def look(command: click.Command, name: str) -> None:
        for key, one in getattr(command, "commands", {}).items():
            look(one, f"{name} {key}".strip())
        if not hasattr(command, "commands"):
            found[name] = {option for given in command.params for option in given.opts}

    look(get_command(cli.app), "")
    return found


def usages(text: str) -> set[tuple[str, tuple[str, ...]]]:
    """The commands a document names, each with the options it names: in the README's list, where
    ``|`` parts the commands of a group, and between backticks."""
    found = set()
    for line in re.findall(r"^calibrant .*", text, re.MULTILINE):
        usage = re.split(r" {3,}", line)[0]
        words = usage.split()[1:]
        options = tuple(re.findall(r"--[a-z-]+", usage))
        parts = [part.split() for part in re.split(r" \| ", usage)]
        group = [words[0]] if words[0] in {"sources", "sets", "models", "recipes", "jobs"} else []
        names = [parts[0][len(group) + 1], *(part[0] for part in parts[1:])]
        found |= {(" ".join([*group, name]), options if len(names) == 1 else ()) for name in names}
    for span in re.findall(r"`calibrant ([a-z][^`]*)`", text):
        words = [word for word in span.split() if re.fullmatch(r"[a-z-]+", word)]
        found.add((" ".join(words[:2]), tuple(re.findall(r"--[a-z-]+", span))))
    return found


def test_every_command_and_option_the_documents_name_exists(
    commands: dict[str, set[str]],
) -> None:
    for file in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")):
        for name, options in usages(file.read_text()):
            known = name if name in commands else name.split()[0]
            assert known in commands, f"{file.name} names calibrant {name}"
            assert set(options) <= commands[known], f"{file.name}: calibrant {name} {options}"


def test_every_command_is_in_the_readme(commands: dict[str, set[str]]) -> None:
    assert commands.keys() - {name for name, _ in usages(README)} == set()


def test_every_module_the_documents_name_exists() -> None:
    for file in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("demo/*/README.md")):
        for path in re.findall(
            r"`((?:app|workers|tests|bench|scripts|demo)/[\w./-]+)`", file.read_text()
        ):
            assert (ROOT / path).exists(), f"{file.name} names {path}"
        for module in re.findall(r"python -m ((?:bench|scripts)\.\w+)", file.read_text()):
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"{file.name}: {module}"


@pytest.mark.parametrize(
    "file", sorted((ROOT / "docs" / "decisions").iterdir()), ids=lambda f: f.stem
)
def test_a_decision_is_headed_by_its_number(file: Path) -> None:
    assert file.read_text().startswith(f"# {int(file.stem[:4])}. ")

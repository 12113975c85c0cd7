"""The documents say what is there: a setting, a target or a page without a word is a bug."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import click
import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typer.main import get_command

from app import cli
from app.jobs import events, files
from app.jobs.states import JobKind, JobState, Step
from app.main import create_app
from app.recipes.schema import Group, Recipe
from app.remote import SERVER_VARIABLE
from app.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
DOCUMENTS = (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("demo/*/README.md"))


def cell(value: object) -> str:
    """A default as a table of the documents has it."""
    match value:
        case tuple():
            return ",".join(value)
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case _:
            return str(value)


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_in_the_readme_with_its_default(name: str) -> None:
    variables = {"database_url": "DATABASE_URL", "redis_url": "REDIS_URL"}
    row = re.escape(f"| `{variables.get(name, f'CALIBRANT_{name.upper()}')}` |")
    default = Settings.model_fields[name].default
    said = r" .+ \|" if default in (None, PydanticUndefined) else re.escape(f" `{cell(default)}` |")
    assert re.search(row + said, README)


def test_the_command_lines_and_the_containers_variables_are_in_the_readme() -> None:
    composed = re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text())
    for name in {SERVER_VARIABLE, *composed}:
        assert f"`{name}`" in README


@pytest.mark.parametrize("model", [Recipe, Group])
def test_every_field_of_a_recipe_is_documented_with_its_default(model: type[BaseModel]) -> None:
    page = (ROOT / "docs" / "recipes.md").read_text()
    for name, field in model.model_fields.items():
        given = field.default
        if isinstance(given, tuple):
            (given,) = given
        said = ".*" if field.is_required() or given == "" else re.escape(f"`{cell(given)}`")
        assert re.search(rf"^\| `{name}` \| {said} ?\|", page, re.MULTILINE), name


def test_events_states_kinds_steps_and_files_of_a_job_are_in_the_architecture() -> None:
    union, _ = get_args(events.Event)
    types = {each.model_fields["type"].default for each in get_args(union)}
    kept = {value for name, value in vars(files).items() if name.isupper()}
    for name in {*types, *JobKind, *kept}:
        assert f"`{name}`" in ARCHITECTURE, name
    for name in {*JobState, *Step}:
        assert re.search(rf"\b{name}\b", ARCHITECTURE), name


def test_every_part_of_the_data_directory_is_in_the_architecture(tmp_path: Path) -> None:
    parts = [name for name, of in vars(Settings).items() if isinstance(of, property)]
    places = [getattr(Settings(data_dir=tmp_path), name) for name in parts if name.endswith("_dir")]
    assert places
    for place in places:
        assert f"`{place.name}/`" in ARCHITECTURE


def test_every_module_and_folder_has_its_place_in_the_architecture() -> None:
    modules = [*ROOT.glob("app/*.py"), *ROOT.glob("workers/*.py")]
    for file in (file for file in modules if file.name != "__init__.py"):
        assert f"`{file.relative_to(ROOT)}`" in ARCHITECTURE
    for room in ROOT.glob("workers/engine/*/__init__.py"):
        assert re.search(rf"`(workers/engine/)?{room.parent.name}/`", ARCHITECTURE)
    ours = {"templates", "static", "migrations", "tests", "bench", "scripts", "demo"}
    assert {name for name in ours if f"`{name}/`" not in ARCHITECTURE} == set()


def test_every_page_the_documents_name_exists() -> None:
    served = (*create_app().openapi()["paths"], "/openapi.json", "/healthz")
    for file in DOCUMENTS:
        for address in re.findall(r"`(/[a-z][\w/.{}-]*)`", file.read_text()):
            assert address in served, f"{file.name} names the page {address}"


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


def links(file: Path) -> list[tuple[Path, str]]:
    """The files and the headings in them that a document links to."""
    found = re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", file.read_text())
    return [((file.parent / path).resolve() if path else file, part) for path, part in found]


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda f: str(f.relative_to(ROOT)))
def test_every_file_and_heading_a_document_links_to_exists(file: Path) -> None:
    for target, heading in links(file):
        assert target.exists(), f"{file.name} links to {target}"
        if heading:
            titles = re.findall(r"^#+ (.*)", target.read_text(), re.MULTILINE)
            addresses = [
                re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles
            ]
            assert heading in addresses, f"{file.name} links to {target.name}#{heading}"


def test_every_document_is_linked_to_from_the_readme() -> None:
    linked = {target for target, _ in links(ROOT / "README.md")}
    for file in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("demo/*/README.md")):
        assert file in linked or (file.name == "README.md" and file.parent == ROOT), file


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
    for file in DOCUMENTS:
        for name, options in usages(file.read_text()):
            known = name if name in commands else name.split()[0]
            assert known in commands, f"{file.name} names calibrant {name}"
            assert set(options) <= commands[known], f"{file.name}: calibrant {name} {options}"


def test_every_command_and_option_has_a_help_text() -> None:
    cli.add_worker_commands()

    def look(command: click.Command, name: str) -> None:
        assert command.help, name
        for option in command.params:
            given = "--" not in option.opts[0] or getattr(option, "help", None)
            assert given, f"{name} {option.opts}"
        for key, one in getattr(command, "commands", {}).items():
            look(one, f"{name} {key}")

    look(get_command(cli.app), "calibrant")


def test_every_command_is_in_the_readme(commands: dict[str, set[str]]) -> None:
    assert commands.keys() - {name for name, _ in usages(README)} == set()


def test_every_module_the_documents_name_exists() -> None:
    for file in DOCUMENTS:
        for path in re.findall(
            r"`((?:app|workers|tests|bench|scripts|demo)/[\w./-]+)`", file.read_text()
        ):
            assert (ROOT / path).exists(), f"{file.name} names {path}"
        for module in re.findall(r"python -m ((?:bench|scripts)\.\w+)", file.read_text()):
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"{file.name}: {module}"


@pytest.mark.parametrize("folder", ["app", "workers", "bench", "scripts", "tests"])
def test_every_module_a_docstring_or_comment_names_exists(folder: str) -> None:
    for file in (ROOT / folder).rglob("*.py"):
        text = file.read_text()
        for name in re.findall(r"`((?:app|workers|bench|scripts|tests)(?:\.\w+)+)`", text):
            known = [name.replace(".", "/"), name.rpartition(".")[0].replace(".", "/")]
            found = any((ROOT / f"{path}.py").is_file() for path in known)
            assert found or (ROOT / known[0]).is_dir(), f"{file} names {name}"
        for path in re.findall(
            r"(?<![/\w])((?:docs|demo|tests|bench)/[\w./-]+\.(?:md|py))\b", text
        ):
            assert (ROOT / path).is_file(), f"{file} names {path}"


@pytest.mark.parametrize(
    "file", sorted((ROOT / "docs" / "decisions").iterdir()), ids=lambda f: f.stem
)
def test_a_decision_is_headed_by_its_number(file: Path) -> None:
    assert file.read_text().startswith(f"# {int(file.stem[:4])}. ")

"""A composition as a quantizers YAML, where that format can say it.

What the other tool does not read stands under ``calibrant``: names, tags, limits of the sample.
What would change its rows and has no field there makes a set inexpressible; the caller then
writes our own format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from app.calibration.spec import SetSpec, Slice
from app.set_files.prefixes import prefix_of
from app.set_files.quantizers_format import OWN, ROOT
from app.sources.entry import FolderOrigin, HubOrigin, SourceEntry
from app.yaml_lines import Dumper, dump, load_with_lines

# Those of the quantizers tool; ours have more.
FORMATTERS = frozenset(
    {
        "chat_completion", "chat_completion_with_sysprompt", "sharegpt", "prompt_answer",
        "raw_text", "deepmind_code_contests",
    }
)  # fmt: skip
# A set's settings that the format has no field for, and the value it works with.
SETTINGS = {
    "token_budget": None,
    "split": "calibration",
    "truncation": "tail",
    "min_tokens": 0,
    "duplicates": "keep",
    "packing": False,
    "reasoning": "native",
}
KEPT_AT_SET = ("name", "notes")
NAMES = {"programming_language": "programming_languages", "spoken_language": "spoken_languages"}


def inexpressible(spec: SetSpec, sources: Mapping[str, SourceEntry]) -> list[str]:
    """What of a set the format has no field for, a phrase each; empty when it can say it all."""
    wrong = [
        f"{field} is {getattr(spec, field)}"
        for field, usual in SETTINGS.items()
        if getattr(spec, field) != usual
    ]
    for part in spec.slices:
        wrong += [f"slice {part.name!r} {problem}" for problem in _of_slice(part, sources)]
    return wrong


def to_quantizers(spec: SetSpec, sources: Mapping[str, SourceEntry]) -> str:
    """The file. ``sources`` by name; only for a set that is not :func:`inexpressible`."""
    templates = _templates(spec)
    entries = [_entry(part, sources[part.sources[0]], templates) for part in spec.slices]
    kept = dict(spec.extra.get(ROOT, {}))
    named = {template.name: template for template in templates.values()}
    listed = {**named, **kept.pop("_templates", {})}
    own = {field: getattr(spec, field) for field in KEPT_AT_SET if getattr(spec, field)}
    document = {
        ROOT: {
            **({"_templates": listed} if listed else {}),
            "max_seq_length": spec.max_length,
            "shuffle": kept.pop("shuffle", True),
            "seed": spec.seed,
            OWN: {key: list(value) if key == "notes" else value for key, value in own.items()},
            **kept,
            "datasets": entries,
        },
        **spec.extra.get("document", {}),
    }
    return _with_sections(dump(document, _Dumper), spec)


def _of_slice(part: Slice, sources: Mapping[str, SourceEntry]) -> Iterator[str]:
    for field in ("weight", "tokens", "facets", "balance", "row_ids"):
        if getattr(part, field):
            yield f"gives {field}"
    if len(part.sources) != 1:
        yield f"takes rows of {len(part.sources) or 'all'} sources"
        return
    source = sources.get(part.sources[0])
    if source is None or not isinstance(source.origin, HubOrigin | FolderOrigin):
        yield f"takes rows of {part.sources[0]!r}, which is not on the hub"
        return
    if source.formatter not in FORMATTERS:
        yield f"uses the formatter {source.formatter}"
    for name in source.params:
        if (source.formatter, name) != ("raw_text", "prefix"):
            yield f"gives the parameter {name} of its formatter"
    if part.prompt and source.formatter != "raw_text":
        yield f"puts a prompt before rows of the formatter {source.formatter}"
    elif part.prompt and source.params:
        yield "has a prompt, and its source a prefix"
    elif part.prompt and prefix_of(part.prompt) is None:
        yield "has a prompt that is no prefix of that format"


class _Template(str):
    """A prefix that several entries share: written once, with an anchor of this name."""

    name: str

    def __new__(cls, text: str, name: str) -> _Template:
        made = super().__new__(cls, text)
        made.name = name
        return made


def _templates(spec: SetSpec) -> dict[str, _Template]:
    """The prefixes that are worth a name: those of prompts used by several entries."""
    texts = Counter(
        prefix for part in spec.slices if part.prompt and (prefix := prefix_of(part.prompt))
    )
    facets = {prefix_of(part.prompt): part.prompt.facet for part in spec.slices if part.prompt}
    taken: set[str] = set(spec.extra.get(ROOT, {}).get("_templates", {}))
    named: dict[str, _Template] = {}
    for number, text in enumerate((text for text, count in texts.items() if count > 1), 1):
        facet = facets[text]
        wanted = NAMES.get(facet.value if facet else "", "prompt")
        name = wanted if wanted not in taken else f"{wanted}_{number}"
        taken.add(name)
        named[text] = _Template(text, name)
    return named


def _entry(part: Slice, source: SourceEntry, templates: Mapping[str, _Template]) -> dict[str, Any]:
    origin = source.origin.model_dump(mode="json")
    prefix = prefix_of(part.prompt) if part.prompt else source.params.get("prefix")
    params = {} if prefix is None else {"prefix": templates.get(prefix, prefix)}
    name = origin.get("id") or origin["path"]
    entry = {
        "dataset": name,
        "subset": origin.get("subset"),
        "split": origin.get("split", "train"),
        "columns": _FlowList(source.columns),
        "formatter": source.formatter,
        "num_samples": part.rows,
        "streaming": origin.get("streaming", False),
        "formatter_params": {**params, **part.extra.get("formatter_params", {})},
        "revision": origin.get("revision"),
        "license": source.license,
        "category": part.extra.get("category"),
        OWN: _Flow(
            **({} if part.name == name else {"slice": part.name}), source=_own_source(source)
        ),
        **part.extra.get("entry", {}),
    }
    return {key: value for key, value in entry.items() if value not in (None, False, {})}


def _own_source(source: SourceEntry) -> dict[str, Any]:
    """What of a source the format has no field for."""
    said = {"columns", "formatter", "license", "origin", "name", "tags"}
    own: dict[str, Any] = {"name": source.name, "tags": source.model_dump(mode="json")["tags"]}
    own |= source.model_dump(mode="json", exclude_defaults=True, exclude=said)
    known = {"kind", "id", "subset", "split", "revision", "streaming", "path"}
    origin = source.origin.model_dump(mode="json", exclude_defaults=True, exclude=known)
    return own | ({"origin": origin} if origin else {})


def _with_sections(text: str, spec: SetSpec) -> str:
    """The file with its categories as section comments, where every slice has one, and air
    between the entries."""
    titles = [part.extra.get("category") for part in spec.slices]
    all_titled = all(isinstance(title, str) and title.isprintable() for title in titles)
    counts: Counter[str] = Counter()
    for part, title in zip(spec.slices, titles, strict=True):
        counts[str(title)] += part.rows if isinstance(part.rows, int) else 0
    _, places = load_with_lines(text)
    lines = text.split("\n")
    for at in range(len(titles) - 1, -1, -1):
        above = [""]
        if all_titled and (at == 0 or titles[at] != titles[at - 1]):
            above.append(f"    # {titles[at]} ({counts[str(titles[at])]} samples)")
            above.append("    # " + "-" * 75)
        line = places[ROOT, "datasets", at] - 1
        lines[line:line] = above
    return "\n".join(lines)


class _FlowList(tuple[str, ...]):
    """A list written on one line."""


class _Flow(dict[str, Any]):
    """A mapping written on one line."""


class _Dumper(Dumper):
    """Anchors for shared templates alone, lists indented under their key."""

    def ignore_aliases(self, data: Any) -> bool:
        return not isinstance(data, _Template)

    def generate_anchor(self, node: yaml.Node) -> str:
        return self.names.get(str(node.value)) or super().generate_anchor(node)

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        return super().increase_indent(flow, False)

    def represent_template(self, data: _Template) -> yaml.Node:
        """A text in double quotes, its anchor remembered."""
        self.names[str(data)] = data.name
        return self.represent_scalar("tag:yaml.org,2002:str", str(data), style='"')

    def represent_flow(self, data: _Flow) -> yaml.Node:
        """A mapping on one line."""
        return self.represent_mapping("tag:yaml.org,2002:map", data, flow_style=True)

    def represent_flow_list(self, data: _FlowList) -> yaml.Node:
        """A list on one line."""
        return self.represent_sequence("tag:yaml.org,2002:seq", list(data), flow_style=True)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.names: dict[str, str] = {}


_Dumper.add_representer(_Template, _Dumper.represent_template)
_Dumper.add_representer(_Flow, _Dumper.represent_flow)
_Dumper.add_representer(_FlowList, _Dumper.represent_flow_list)

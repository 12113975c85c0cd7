"""Recipes of llmcompressor, old and new, as ours, with a note of everything that changed.

What is known of the old ones: since 0.14 ``AWQModifier`` is a pure transform and refuses
``config_groups``, a ``QuantizationModifier`` stands beside it; transformers 5 names the experts of
MiniMax-M2, Mixtral and PhiMoE ``mlp.experts.N.{gate,up,down}_proj``, so patterns of
``block_sparse_moe.experts.N.w1`` match nothing; and mappings without the router change which
experts a token is sent to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from app.errors import RecipeRefused
from app.recipes.schema import Group, Recipe
from app.validation import placed_problem
from app.yaml_lines import Place

AWQ, QUANTIZATION = "AWQModifier", "QuantizationModifier"
PROJECTIONS = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
OLD_NAME = re.compile(r"\b(w1|w2|w3)\b")
SCHEMES = {
    "W4A16": {"bits": 4, "group_size": 128, "symmetric": True},
    "W4A16_ASYM": {"bits": 4, "group_size": 128, "symmetric": False},
    "W8A16": {"bits": 8, "group_size": 128, "symmetric": True},
}
OBSERVERS = {"minmax", "memoryless_minmax", "static_minmax"}


class Note(BaseModel):
    """Something that changed on import, with the line of the file it concerns."""

    line: int
    message: str


class Imported(BaseModel):
    """A recipe that was read from a file, and what was changed to make it one of ours."""

    recipe: Recipe
    notes: list[Note] = []


def is_llmcompressor(document: Any) -> bool:
    """Whether a YAML document is a recipe of llmcompressor."""
    return isinstance(document, dict) and any(True for _ in _modifiers(document, ()))


def import_recipe(document: Any, lines: dict[Place, int], name: str) -> Imported:
    """Read llmcompressor's YAML, with the line of every value. ``name`` is the recipe's, for want
    of one in the file.

    Raises RecipeRefused, naming the line, for what cannot be kept: a modifier that does something
    else, quantized activations, a strategy other than group and channel.
    """
    reading = _Reading(lines)
    for place, kind, given in _modifiers(document, ()):
        reading.take(place, kind, given or {})
    if not reading.groups:
        raise RecipeRefused(f"{name} quantizes nothing: it has no config_groups and no scheme.")
    settings = {"name": _slug(name, "recipe"), **reading.settings}
    try:
        recipe = Recipe(groups=tuple(reading.groups), **settings)
    except ValidationError as error:
        raise RecipeRefused(f"{name}: {placed_problem(error, Recipe)}") from error
    return Imported(recipe=recipe, notes=sorted(reading.notes, key=lambda note: note.line))


def _modifiers(document: Any, place: Place) -> Iterator[tuple[Place, str, Any]]:
    """Every modifier at any depth of stages, with its place."""
    if isinstance(document, list):
        for at, item in enumerate(document):
            yield from _modifiers(item, (*place, at))
    if not isinstance(document, dict):
        return
    for key, value in document.items():
        if str(key).endswith("Modifier"):
            yield (*place, str(key)), str(key), value
        elif isinstance(value, dict | list):
            yield from _modifiers(value, (*place, str(key)))


class _Reading:
    """One file being read: the groups and settings so far, and the notes."""

    def __init__(self, lines: dict[Place, int]) -> None:
        self.groups: list[Group] = []
        self.settings: dict[str, Any] = {"smooth": False}
        self.notes: list[Note] = []
        self._lines = lines

    def take(self, place: Place, kind: str, given: Mapping[str, Any]) -> None:
        """Read one modifier."""
        if kind not in {AWQ, QUANTIZATION}:
            raise RecipeRefused(
                f"Line {self._line(place)}: {kind} is not something Calibrant does; it reads "
                f"{AWQ} and {QUANTIZATION}."
            )
        if kind == AWQ:
            self.settings["smooth"] = True
            self._take_search(place, given)
        if kind == AWQ and {"config_groups", "scheme", "targets"} & given.keys():
            self._say(
                place,
                "Since llmcompressor 0.14 AWQModifier only smooths and refuses to quantize: its "
                "groups stand in a QuantizationModifier of their own.",
            )
        self._take_groups(place, given)
        known = {"config_groups", "scheme", "targets", "ignore"}
        known |= {"mappings", "duo_scaling", "n_grid"} if kind == AWQ else set()
        for key in given.keys() - known:
            self._say((*place, key), f"{key} has no meaning here and is left out.")

    def _take_search(self, place: Place, given: Mapping[str, Any]) -> None:
        if "n_grid" in given:
            self.settings["grid"] = given["n_grid"]
        if "duo_scaling" in given:
            self.settings["duo_scaling"] = bool(given["duo_scaling"])
            if given["duo_scaling"] == "both":
                message = "duo_scaling: both is read as true: every point but the first uses it."
                self._say((*place, "duo_scaling"), message)
        for at, mapping in enumerate(given.get("mappings") or []):
            self._say((*place, "mappings", at), _about_mapping(mapping))

    def _take_groups(self, place: Place, given: Mapping[str, Any]) -> None:
        if given.get("ignore"):
            ignored = given["ignore"]
            ignored = [ignored] if isinstance(ignored, str) else ignored
            inner = (*place, "ignore")
            self.settings["ignore"] = tuple(self._pattern(each, inner) for each in ignored)
        for name, group in (given.get("config_groups") or {}).items():
            self._take_group((*place, "config_groups", str(name)), str(name), group)
        if given.get("scheme"):
            self._take_scheme(place, given)

    def _take_scheme(self, place: Place, given: Mapping[str, Any]) -> None:
        scheme = given["scheme"]
        if scheme not in SCHEMES:
            raise RecipeRefused(
                f"Line {self._line((*place, 'scheme'))}: the scheme {scheme!r} is not known here; "
                f"known are {', '.join(SCHEMES)}."
            )
        targets = given.get("targets") or ["Linear"]
        targets = [targets] if isinstance(targets, str) else targets
        patterns = tuple(self._pattern(each, (*place, "targets")) for each in targets)
        self._add(place, {"name": "weights", "targets": patterns, **SCHEMES[scheme]})

    def _take_group(self, place: Place, name: str, given: Mapping[str, Any]) -> None:
        weights = dict(given.get("weights") or {})
        if given.get("input_activations") or given.get("output_activations"):
            raise RecipeRefused(
                f"Line {self._line(place)}: group {name} quantizes activations; Calibrant "
                "quantizes weights only."
            )
        strategy = weights.pop("strategy", "group")
        if strategy not in {"group", "channel"}:
            raise RecipeRefused(
                f"Line {self._line((*place, 'weights', 'strategy'))}: the strategy {strategy!r} "
                "is not known here; use group or channel."
            )
        values = {
            "name": _slug(name, "group"),
            "targets": tuple(
                self._pattern(each, (*place, "targets", at))
                for at, each in enumerate(given.get("targets") or [])
            ),
            "bits": weights.pop("num_bits", 8),
            "type": weights.pop("type", "int"),
            "symmetric": weights.pop("symmetric", True),
            "group_size": weights.pop("group_size", None) if strategy == "group" else None,
        }
        self._check_rest(place, weights)
        for key in given.keys() - {"targets", "weights", "input_activations", "output_activations"}:
            self._say((*place, key), f"{key} has no meaning here and is left out.")
        self._add(place, values)

    def _add(self, place: Place, values: dict[str, Any]) -> None:
        try:
            self.groups.append(Group.model_validate(values))
        except ValidationError as error:
            raise RecipeRefused(
                f"Line {self._line(place)}: group {values['name']}: {placed_problem(error, Group)}"
            ) from error

    def _check_rest(self, place: Place, weights: dict[str, Any]) -> None:
        """Say what is left of a group's weights once the known keys are taken."""
        weights.pop("dynamic", None)
        observer = weights.pop("observer", None)
        if observer is not None:
            inner = (*place, "weights", "observer")
            if observer in OBSERVERS:
                self._say(inner, f"observer: {observer} is what is always used, and left out.")
            else:
                self._say(inner, f"observer: {observer} is not there: minmax is used instead.")
        for key in weights:
            if key != "group_size":
                inner = (*place, "weights", key)
                self._say(inner, f"{key} has no meaning here and is left out.")

    def _pattern(self, given: str, place: Place) -> str:
        """A target of compressed-tensors as one of our patterns, by the names transformers uses."""
        if given == "Linear":
            self._say(place, "The class Linear is written as a pattern that matches every name.")
            return r".*"
        if not given.startswith("re:"):
            return f"^{re.escape(given)}$"
        pattern = given.removeprefix("re:")
        renamed = OLD_NAME.sub(lambda found: PROJECTIONS[found[1]], pattern)
        renamed = re.sub(r"(?<!\()block_sparse_moe", "(mlp|block_sparse_moe)", renamed)
        if renamed != pattern:
            self._say(
                place,
                f"{pattern} names tensors of the checkpoint; the modules are called otherwise "
                f"since transformers 5, so it is {renamed} now.",
            )
        return renamed

    def _line(self, place: Place) -> int:
        while place not in self._lines and place:
            place = place[:-1]
        return self._lines.get(place, 1)

    def _say(self, place: Place, message: str) -> None:
        self.notes.append(Note(line=self._line(place), message=message))


def _about_mapping(mapping: Any) -> str:
    given = mapping if isinstance(mapping, dict) else {}
    smooth, balance = given.get("smooth_layer", "?"), given.get("balance_layers") or []
    told = f"The mapping of {smooth} is made from the model's own modules instead"
    reads_norm = "norm" in str(smooth)
    experts = any(re.search(r"w1|w3|gate_proj|up_proj|expert", str(each)) for each in balance)
    if reads_norm and experts:
        has_router = any(re.search(r"gate\$|router", str(each)) for each in balance)
        if not has_router:
            return (
                f"{told}, with the router first: it reads the same norm, was left out here, and "
                "would have sent tokens to other experts."
            )
    return f"{told}."


def _slug(name: str, otherwise: str) -> str:
    slug = re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_")
    return slug if slug[:1].isalpha() else f"{otherwise}_{slug}".strip("_")

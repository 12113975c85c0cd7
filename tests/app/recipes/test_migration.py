"""Recipes of llmcompressor become ours, and every change is said with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.errors import RecipeRefused
from app.recipes.files import dump_recipe, load_recipe, parse_recipe
from app.recipes.migration import Imported
from app.recipes.schema import PRESETS, Recipe

OLD = Path(__file__).with_name("old_experts.yaml")
SEED = Path(__file__).resolve().parents[4] / "shared" / "seed"
EXPERTS = r".*(mlp|block_sparse_moe)\.experts\.\d+\.(gate_proj|down_proj|up_proj)$"

NEW = """
quant_stage:
  quant_modifiers:
    - AWQModifier:
        duo_scaling: both
        n_grid: 12
        mappings:
          - smooth_layer: re:.*post_attention_layernorm$
            balance_layers: ['re:.*mlp.gate$', 're:.*gate_proj$', 're:.*up_proj$']
    - QuantizationModifier:
        ignore: [lm_head]
        targets: [Linear]
        scheme: W4A16_ASYM
"""


def line_of(text: str, needle: str) -> int:
    return next(n for n, line in enumerate(text.splitlines(), 1) if needle in line)


def message_at(found: Imported, line: int) -> str:
    return " ".join(note.message for note in found.notes if note.line == line)


def test_an_old_recipe_is_read_with_a_note_of_every_change() -> None:
    text = OLD.read_text(encoding="utf-8")
    found = load_recipe(str(OLD))
    (group,) = found.recipe.groups
    assert (group.bits, group.group_size, group.symmetric, group.type) == (4, 32, True, "int")
    assert group.targets == (EXPERTS,)
    assert (found.recipe.smooth, found.recipe.duo_scaling) == (True, True)
    assert "QuantizationModifier of their own" in message_at(found, line_of(text, "AWQModifier"))
    assert "called otherwise" in message_at(found, line_of(text, "targets"))
    assert "always used" in message_at(found, line_of(text, "observer"))
    norm = message_at(found, line_of(text, "post_attention_layernorm"))
    assert "router first" in norm
    assert "router" not in message_at(found, line_of(text, "smooth_layer: re:.*w3"))
    assert "left out" in message_at(found, line_of(text, "offload_device"))
    assert [note.line for note in found.notes] == sorted(note.line for note in found.notes)


def test_a_recipe_of_today_is_read() -> None:
    found = parse_recipe(NEW, "today", where="today.yaml")
    (group,) = found.recipe.groups
    assert (group.bits, group.group_size, group.symmetric) == (4, 128, False)
    assert group.targets == (r".*",)
    assert found.recipe.ignore == ("^lm_head$",)
    assert (found.recipe.grid, found.recipe.name) == (12, "today")
    assert not any("of their own" in note.message for note in found.notes)
    assert not any("router first" in note.message for note in found.notes)


def test_without_awq_nothing_is_smoothed() -> None:
    text = "s: {m: {QuantizationModifier: {scheme: W4A16, targets: 're:.*_proj$'}}}"
    recipe = parse_recipe(text, "Round to nearest!", where="r.yaml").recipe
    assert (recipe.smooth, recipe.name) == (False, "round_to_nearest")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s:\n m:\n  GPTQModifier: {scheme: W4A16}", "Line 3: GPTQModifier is not something"),
        ("s: {m: {QuantizationModifier: {scheme: NVFP4}}}", "scheme 'NVFP4' is not known"),
        ("s: {m: {AWQModifier: {duo_scaling: true}}}", "quantizes nothing"),
        (
            "s: {m: {QuantizationModifier: {config_groups: {a: {targets: ['re:x'],"
            " input_activations: {num_bits: 8}}}}}}",
            "quantizes activations",
        ),
        (
            "s: {m: {QuantizationModifier: {config_groups: {a: {targets: ['re:x'],"
            " weights: {strategy: tensor}}}}}}",
            "strategy 'tensor' is not known",
        ),
        (
            "s: {m: {QuantizationModifier: {config_groups: {a: {targets: ['re:x'],"
            " weights: {num_bits: 2}}}}}}",
            "group a: bits",
        ),
        (
            "s: {m: {QuantizationModifier: {scheme: W4A16, targets: 're:.*('}}}",
            r"Line 1: group weights: targets.0: \.\*\( is not a regular expression",
        ),
        ("s: [", r"r\.yaml, line 2, column 1: "),
        ("", r"r\.yaml is no recipe: it has no groups"),
        ("{name: r, groups: [{name: g, targets: ['a('], bits: 4}]}", "0: a\\( is not a regular"),
        ("{name: r, groups: [{name: g, targets: [a]}], ignore: ['[']}", "ignore.0: \\[ is"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(RecipeRefused, match=said):
        parse_recipe(text, "r", where="r.yaml")


@pytest.mark.parametrize("recipe", PRESETS.values(), ids=PRESETS)
def test_our_own_yaml_is_read_back(recipe: Recipe) -> None:
    changed = recipe.model_copy(update={"statistics": "routed", "floor": 64, "grid": 7})
    for each in (recipe, changed):
        again = parse_recipe(dump_recipe(each), "r", where="r.yaml")
        assert (again.recipe, again.notes) == (each, [])


@pytest.mark.skipif(not SEED.is_dir(), reason="the seed is not beside this checkout")
def test_the_seeds_two_recipes() -> None:
    experts = load_recipe(str(SEED / "recipe_Minimax-M2.1-Experts-only-AWQ.yaml"))
    assert [group.targets for group in experts.recipe.groups] == [(EXPERTS,)]
    mixed = load_recipe(str(SEED / "recipe_Minimax-M2.1-AWQ-MixedPrec.yaml"))
    kinds = [(group.bits, group.type, group.group_size) for group in mixed.recipe.groups]
    assert kinds == [(8, "float", 32), (4, "int", 32)]
    assert sum("router first" in note.message for note in mixed.notes) == 1
    assert len([note for note in mixed.notes if "made from the model's own" in note.message]) == 4

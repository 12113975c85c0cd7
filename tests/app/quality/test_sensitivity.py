"""Proposals of mixed precision, against cases worked out by hand."""

from __future__ import annotations

import csv
import io
import re
from html import unescape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.jobs.spec import LayerReport, ModuleReport
from app.quality.sensitivity import SensitivityRefused, propose, units_of
from app.recipes.packed_size import packed_bytes
from app.recipes.schema import PRESETS, Group, Recipe

LINEARS = PRESETS["linears-w4a16-g128"].model_copy(
    update={"groups": (Group(name="linears", targets=(r".*_proj$",), group_size=32),)}
)
EXPERTS = PRESETS["experts-w4a16-g32"]


def module(layer: int, name: str, error: float, rows: int = 64, columns: int = 64) -> ModuleReport:
    return ModuleReport(
        layer=layer, module=f"model.layers.{layer}.{name}", relative_mse=error, sqnr_db=0,
        rows=rows, columns=columns, signal=1.0,
    )  # fmt: skip


def layer(number: int, output: float | None) -> LayerReport:
    return LayerReport(layer=number, relative_mse=0.01, sqnr_db=20, output_relative_mse=output)


def small() -> list[ModuleReport]:
    """Two layers: attention small, three experts' matrices large."""
    found = []
    for number in (0, 1):
        found += [module(number, f"self_attn.{n}_proj", 0.01) for n in ("q", "k", "v", "o")]
        for expert in (0, 1):
            for name in ("gate_proj", "up_proj", "down_proj"):
                found.append(module(number, f"mlp.experts.{expert}.{name}", 0.01, 256, 256))
    return found


def size_of(modules: list[ModuleReport], recipe: Recipe) -> int:
    """Bytes of the modules under a recipe, BF16 where no group takes them."""
    total = 0
    for each in modules:
        groups = [g for g in recipe.groups if any(re.match(t, each.module) for t in g.targets)]
        assert len(groups) <= 1, f"{each.module} is in two groups"
        rows, columns = each.rows or 0, each.columns or 0
        total += packed_bytes(rows, columns, groups[0], 2) if groups else 2 * rows * columns
    return total


def test_units_are_what_engines_serve_together() -> None:
    units = units_of(LINEARS, small(), {0: 0.4, 1: 0.1}, {})
    assert sorted((unit.name, unit.weights) for unit in units if unit.layer == 0) == [
        ("layer 0, mlp.experts", 6),
        ("layer 0, self_attn q, k and v", 3),
        ("layer 0, self_attn.o_proj", 1),
    ]


def test_a_layers_output_error_is_divided_by_weights_errors() -> None:
    modules = [module(0, "mlp.gate_proj", 0.03), module(0, "mlp.down_proj", 0.01)]
    gate, down = units_of(LINEARS, modules, {0: 0.4}, {})
    assert (gate.error, down.error) == (pytest.approx(0.3), pytest.approx(0.1))
    assert gate.error_at(8) == pytest.approx(0.3 * (15 / 255) ** 2)
    assert gate.error_at(16) == 0


def test_the_first_layers_attention_comes_first() -> None:
    modules = small()
    now = size_of(modules, LINEARS)
    layers = [layer(0, 0.4), layer(1, 0.1)]
    found = propose(LINEARS, modules, layers, now, now + 9_000, {})
    assert found.is_of_outputs
    assert [step.unit.name for step in found.steps][:2] == [
        "layer 0, self_attn.o_proj", "layer 0, self_attn q, k and v",
    ]  # fmt: skip
    assert found.error_now == pytest.approx(0.5)
    assert found.error_left < found.error_now


def test_the_recipe_takes_the_steps_and_the_size_is_exact() -> None:
    modules = small()
    now = size_of(modules, LINEARS)
    found = propose(LINEARS, modules, [layer(0, 0.4), layer(1, 0.1)], now, now + 260_000, {})
    assert size_of(modules, found.recipe) == found.size <= now + 260_000
    assert {group.bits for group in found.recipe.groups} == {4, 8}
    assert Recipe.model_validate(found.recipe.model_dump()) == found.recipe


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(1e-4, 0.1), min_size=20, max_size=20),
    st.floats(0, 1),
)
def test_any_budget_is_kept_and_no_module_is_in_two_groups(
    errors: list[float], share: float
) -> None:
    modules = [
        each.model_copy(update={"relative_mse": error})
        for each, error in zip(small(), errors, strict=True)
    ]
    now = size_of(modules, LINEARS)
    budget = now + round(share * 0.95 * (size_of_plain(modules) - now))
    found = propose(LINEARS, modules, [layer(0, 0.4), layer(1, 0.1)], now, budget, {})
    assert size_of(modules, found.recipe) == found.size <= budget
    assert found.error_left <= found.error_now + 1e-12


def size_of_plain(modules: list[ModuleReport]) -> int:
    return sum(2 * (each.rows or 0) * (each.columns or 0) for each in modules)


@pytest.mark.parametrize(
    ("stored", "scale_bytes", "bits"), [(1.0002, 2, [16]), (2.0, 2, [8, 16]), (4.0, 4, [8, 16])]
)
def test_a_weight_left_as_it_came_takes_what_it_does_in_the_source(
    stored: float, scale_bytes: int, bits: list[int]
) -> None:
    modules = [module(0, "mlp.down_proj", 0.01, 256, 256), module(0, "mlp.up_proj", 0.01)]
    each = {one.module: stored for one in modules}
    now = sum(packed_bytes(one.rows or 0, one.columns or 0, LINEARS.groups[0], scale_bytes)
              for one in modules)  # fmt: skip
    found = propose(LINEARS, modules, [layer(0, 0.4)], now, now, each)
    down = [step for step in found.curve if step.unit.kind.endswith("down_proj$")]
    assert [step.bits_after for step in down] == bits
    before = packed_bytes(256, 256, LINEARS.groups[0], scale_bytes)
    assert sum(step.bytes_added for step in down) == round(256 * 256 * stored) - before


def test_without_outputs_weights_count_alone() -> None:
    modules = small()
    now = size_of(modules, LINEARS)
    found = propose(LINEARS, modules, [layer(0, 0.4), layer(1, None)], now, now, {})
    assert not found.is_of_outputs
    assert found.recipe.groups == LINEARS.groups


def test_what_cannot_be_proposed_is_refused() -> None:
    modules = small()
    now = size_of(modules, LINEARS)
    with pytest.raises(SensitivityRefused, match=rf"is {now - 1:,} bytes .* has {now:,} already"):
        propose(LINEARS, modules, [], now, now - 1, {})
    with pytest.raises(SensitivityRefused, match=r"nothing would be left .* Give a smaller"):
        propose(LINEARS, modules, [], now, 10**9, {})
    old = [each.model_copy(update={"rows": None}) for each in modules]
    with pytest.raises(SensitivityRefused, match="quantize again"):
        propose(LINEARS, old, [], now, now, {})


@pytest.fixture
def address(filled) -> str:
    return f"/jobs/{filled.seeded.jobs['succeeded']}/sensitivity"


def test_the_page_proposes_an_editable_recipe(filled, html: dict, address: str) -> None:
    view = filled.client.get(f"{address}?budget=5.2&unit=MB").json()
    assert view["taken"] >= 1
    assert view["size"] <= 5_200_000
    page = filled.client.get(f"{address}?budget=5.2&unit=MB", headers=html).text
    assert "Open in the recipe editor" in page
    form = {"name": view["recipe_name"], "text": view["yaml"], "model_id": filled.seeded.model_id}
    editor = filled.client.post("/recipes/edit", data=form, headers=html)
    assert editor.status_code == 200
    assert view["recipe_name"] in editor.text
    lint = filled.client.post("/recipes/lint", json=form).json()["lint"]
    assert lint["errors"] == []
    assert lint["quantized"] == 576
    text = filled.client.get(f"{address}?budget=5.2&unit=MB&format=csv").text
    assert len(list(csv.DictReader(io.StringIO(text)))) == view["total_steps"]
    figure = filled.client.get(f"{address}/chart?budget=5.2&unit=MB").json()
    assert len(figure["data"][0]["x"]) == view["taken"] + 1


def test_a_budget_below_the_smallest_step_says_what_that_needs(
    filled, html: dict, address: str
) -> None:
    roomy = filled.client.get(f"{address}?budget=1e-2").json()
    assert (roomy["smallest"], roomy["least_budget"]) == (None, None)
    firsts = [step for step in roomy["steps"] if step["bits_before"] == 4]
    least = roomy["size_now"] + min(step["bytes_added"] for step in firsts)
    narrow = f"{address}?budget={(least - 1) / 1e6!r}&unit=MB"
    view = filled.client.get(narrow).json()
    assert (view["taken"], view["least_budget"]) == (0, least)
    page = filled.client.get(narrow, headers=html).text
    assert f"The smallest one, {view['smallest']}, needs" in page
    link = re.search(r'href="(\?budget=[^"]+)">propose with that', page)
    assert link is not None
    assert filled.client.get(address + unescape(link[1])).json()["taken"] == 1
    again = re.search(r'name="budget"\s+value="([^"]+)"', page)
    assert again is not None
    assert round(float(again[1]) * 1e6) == least - 1


def test_a_small_checkpoint_is_told_in_a_small_unit(filled, html: dict, address: str) -> None:
    view = filled.client.get(address).json()
    now = f"{view['size_now'] / 1e6:.3f}"
    page = filled.client.get(address, headers=html).text
    assert f"MB, now {now}" in page
    assert '<input type="hidden" name="unit" value="MB">' in page
    chart = re.search(r'data-chart="([^"]+)"', page)
    assert chart is not None
    figure = filled.client.get(unescape(chart[1])).json()
    assert figure["layout"]["xaxis"]["title"]["text"] == "Size (MB); dashed: the budget"
    assert figure["data"][0]["x"][0] == view["size_now"] / 1e6
    assert figure["layout"]["shapes"][0]["x0"] == view["budget"] / 1e6


def test_budgets_that_mean_nothing(filled, html: dict, address: str) -> None:
    assert filled.client.get(f"{address}?budget=-1").status_code == 422
    assert filled.client.get(f"{address}?budget=", headers=html).status_code == 200
    small_budget = filled.client.get(f"{address}?budget=0.001", headers=html).text
    assert "give a larger one" in small_budget
    queued = f"/jobs/{filled.seeded.jobs['queued']}/sensitivity"
    assert "Not measured yet" in filled.client.get(queued, headers=html).text

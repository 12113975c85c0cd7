"""What two sets differ in, by field, slice, facet and row."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.calibration.spec import Prompt, SetSpec, Slice
from app.facets import Facet
from app.set_files.differences import BuiltRow, Change, compare_rows, compare_specs

MATH = Slice(name="Math", rows=5, facets={Facet.DOMAIN: ("math",)})
CODE = Slice(name="Code", tokens=100)
SPEC = SetSpec(name="One", slices=(MATH, CODE))


def changed(**update: Any) -> list[Change]:
    return compare_specs(SPEC, SPEC.model_copy(update=update))


def row(row_id: str, **more: Any) -> BuiltRow:
    given = {"source": "s", "slice": "Math", "facets": {Facet.DOMAIN: "math"}, "tokens": 10}
    return BuiltRow(row_id=row_id, **{**given, "fed_tokens": 6, "named_tokens": 0, **more})


def test_the_same_composition_differs_in_nothing() -> None:
    assert changed() == []


def test_fields_and_slices() -> None:
    assert changed(seed=3, max_length=64) == [
        Change(place="max_length", a="512", b="64"),
        Change(place="seed", a="0", b="3"),
    ]
    more = MATH.model_copy(update={"rows": 9, "facets": {Facet.DOMAIN: ("math", "law")}})
    assert changed(slices=(more, CODE)) == [
        Change(place="slices.Math.rows", a="5", b="9"),
        Change(place="slices.Math.facets.domain", a="math", b="math, law"),
    ]
    assert changed(slices=(MATH,)) == [Change(place="slices.Code.tokens", a="100", b=None)]
    prompt = Prompt(template="In {{ value }}", facet=Facet.SPOKEN_LANGUAGE, values=("ar",))
    with_prompt = CODE.model_copy(update={"prompt": prompt})
    assert Change(place="slices.Code.prompt.values", a=None, b="ar") in changed(
        slices=(MATH, with_prompt)
    )


def test_the_order_of_slices_counts() -> None:
    (change,) = changed(slices=(CODE, MATH))
    assert (change.place, change.a, change.b) == ("order of slices", "Math, Code", "Code, Math")


def test_many_row_ids_are_counted_and_hashed() -> None:
    many = MATH.model_copy(update={"row_ids": tuple(f"{n:016x}" for n in range(500))})
    (change,) = changed(slices=(many, CODE))
    assert change.a is None
    assert change.b is not None
    assert change.b.startswith("500 rows, ")


def test_rows_by_slice_facet_and_row() -> None:
    a = [row("1"), row("2"), row("3", slice="Code", facets={}, tokens=30)]
    b = [
        row("2", tokens=12),
        row("3", slice="Code", facets={}, tokens=30),
        row("4", slice="New", facets={Facet.DOMAIN: "law"}),
        row("5", named_tokens=4, named_facet=Facet.SPOKEN_LANGUAGE, named_value="ar"),
    ]
    found = compare_rows(a, b)
    assert (found.total.a_rows, found.total.b_rows) == (3, 4)
    assert (found.total.rows, found.total.tokens) == (1, 62 - 50)
    assert [(part.name, part.presence, part.tokens) for part in found.slices] == [
        ("Math", "both", 2), ("Code", "both", 0), ("New", "only B", 10),
    ]  # fmt: skip
    facets = {(one.facet, one.value): one for one in found.facets}
    assert (facets[Facet.DOMAIN, "law"].a_tokens, facets[Facet.DOMAIN, "law"].b_tokens) == (0, 6)
    assert facets[Facet.SPOKEN_LANGUAGE, "ar"].b_named == 4
    counts = (found.counts.both, found.counts.only_a, found.counts.only_b, found.counts.changed)
    assert counts == (2, 1, 2, 1)
    assert [(one.row_id, one.presence, one.changed) for one in found.rows] == [
        ("1", "only A", []), ("2", "both", ["tokens"]), ("4", "only B", []), ("5", "only B", []),
    ]  # fmt: skip


ROWS = st.lists(
    st.builds(
        row,
        st.sampled_from("abcdefgh"),
        slice=st.sampled_from(["Math", "Code"]),
        tokens=st.integers(1, 50),
        fed_tokens=st.integers(0, 20),
    ),
    unique_by=lambda one: one.row_id,
)


@given(ROWS, ROWS)
def test_parts_add_up_and_the_other_way_round_is_the_opposite(a, b) -> None:
    found, turned = compare_rows(a, b), compare_rows(b, a)
    assert found.total.tokens == sum(part.tokens for part in found.slices)
    assert found.total.tokens == -turned.total.tokens
    assert found.total.a_rows == found.counts.both + found.counts.only_a
    assert found.total.b_rows == found.counts.both + found.counts.only_b
    assert found.counts.changed == turned.counts.changed
    assert (compare_rows(a, a).rows, compare_rows(a, a).total.tokens) == ([], 0)

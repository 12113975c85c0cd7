"""Languages dealt to rows like cards, and the seed's templates read as such a deal."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.facets import PROGRAMMING_LANGUAGES, Facet
from app.prompts.rotation import hashed_choice, rotation
from app.prompts.sandbox import PromptRefused
from app.prompts.template import PromptTemplate

SPOKEN = "Answer in {{ ['Arabic', 'Chinese', 'Klingon'][hash(row|string) % 3] }}\n***\n"


@given(
    ids=st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=80),
    values=st.lists(st.text(max_size=5), unique=True, min_size=1, max_size=15),
    seed=st.integers(0, 2**63 - 1),
    order=st.randoms(use_true_random=False),
)
def test_each_value_gets_its_share_in_whatever_order_rows_come(ids, values, seed, order) -> None:
    given_to = dict(zip(ids, rotation(ids, values, seed), strict=True))
    counts = Counter(given_to.values())
    assert all(len(ids) // len(values) <= counts[v] <= -(-len(ids) // len(values)) for v in values)
    mixed_ids, mixed_values = list(ids), list(values)
    order.shuffle(mixed_ids)
    order.shuffle(mixed_values)
    assert dict(zip(mixed_ids, rotation(mixed_ids, mixed_values, seed), strict=True)) == given_to


def test_another_seed_deals_otherwise() -> None:
    ids = [f"row-{n}" for n in range(200)]
    first, second = (rotation(ids, PROGRAMMING_LANGUAGES, seed) for seed in (1, 2))
    assert first != second
    # neighbours in the order of ids are not neighbours in the deal
    assert len(set(first[:60])) < 60


def test_the_deal_is_the_same_in_every_process() -> None:
    code = "from app.prompts.rotation import rotation; print(rotation('abcdef', 'xyz', 7))"
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


def test_no_values_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        rotation(["a"], [], 1)


def test_the_seeds_pick_becomes_a_rotation() -> None:
    found = hashed_choice(SPOKEN)
    assert found is not None
    assert found.text == "Answer in {{ value }}\n***\n"
    assert (found.facet, found.values) == (Facet.SPOKEN_LANGUAGE, ("ar", "zh", "Klingon"))
    assert (found.unmapped, found.never) == (("Klingon",), ())
    assert PromptTemplate(found.text).render({}, "Arabic") == "Answer in Arabic\n***\n"


@pytest.mark.parametrize(
    "source",
    [
        '{{["Cobol","Rust"][hash( row | string )%2]}}',
        "{{-\n['Cobol', \"Rust\"] [ hash(row) % 2 ] -}}",
        "{{ ['Cobol', 'golang', 'Rust'][hash(row.id) % 2] }}",
    ],
)
def test_spaces_quotes_and_what_is_hashed_do_not_matter(source: str) -> None:
    found = hashed_choice(source)
    assert found is not None
    assert found.facet is Facet.PROGRAMMING_LANGUAGE
    assert found.values[0] == "COBOL"
    assert found.never == (("Rust",) if "golang" in source else ())


def test_the_rest_of_the_template_stays() -> None:
    found = hashed_choice("{% if row.a %}A {% endif %}{{ ['R'][hash(row) % 1] }}{{ row.b }}{# c #}")
    assert found is not None
    assert found.text == "{% if row.a %}A {% endif %}{{ value }}{{ row.b }}{# c #}"


@pytest.mark.parametrize(
    "source",
    [
        "Summarize this:\n***\n",
        "{{ ['a', row.b][hash(row) % 2] }}",
        "{{ ['a', 'b'][len(row) % 2] }}",
        "{{ ['a', 'b'][hash(row)] }}",
        "{{ [][hash(row) % 0] }}",
        "{{ ['a'][hash(row) % 1] }}{{ ['b'][hash(row) % 1] }}",
        "{% raw %}{{ ['a'][hash(row) % 1] }}{% endraw %}",
        "{{ ['a'][hash(row) % 1]",
    ],
)
def test_what_is_no_pick_is_left_alone(source: str) -> None:
    assert hashed_choice(source) is None


def test_a_pick_past_the_end_of_its_list_is_refused() -> None:
    with pytest.raises(PromptRefused, match="from 2 names by % 3"):
        hashed_choice("{{ ['a', 'b'][hash(row) % 3] }}")

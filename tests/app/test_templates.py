"""What every template keeps to."""

from __future__ import annotations

from app.settings import ROOT
from app.templating import templates


def test_tables_are_written_by_one_macro() -> None:
    folder = ROOT / "templates"
    with_tables = {
        str(path.relative_to(folder))
        for path in folder.rglob("*.html")
        if "<table" in path.read_text()
    }
    assert with_tables == {"_macros.html"}


def test_a_table_is_named_and_reached_by_the_keyboard() -> None:
    source = (
        '{% import "_macros.html" as ui %}'
        '{% call ui.table(title="sizes-title", kind="tight", tall=true) %}<tr>{% endcall %}'
        '{% call ui.table(caption="A & B") %}<tr>{% endcall %}'
    )
    titled, captioned = templates.env.from_string(source).render().split("</div>")[:2]
    assert 'class="table tall"' in titled
    assert 'aria-labelledby="sizes-title"' in titled
    assert 'aria-label="A &amp; B"' in captioned
    assert '<caption class="hidden">A &amp; B</caption>' in captioned
    for one in (titled, captioned):
        assert 'role="region"' in one
        assert 'tabindex="0"' in one

from __future__ import annotations

import base64
import gzip
import json
import math
from typing import Any

import numpy as np
import pytest

from app.coverage.heatmap import difference, heatmap, typed
from tests.app.coverage.profiles import dense, large, small


def z_of(figure: dict[str, Any]) -> np.ndarray:
    return unpacked(figure["data"][0]["z"])


def unpacked(array: dict[str, str]) -> np.ndarray:
    rows, columns = (int(size) for size in array["shape"].split(","))
    return np.frombuffer(base64.b64decode(array["bdata"]), "<" + array["dtype"]).reshape(
        rows, columns
    )


def feeders_of(figure: dict[str, Any], row: int, column: int) -> list[str]:
    """What the pointer says of a cell's feeders, as the browser puts it together."""
    said = []
    for facet in figure["hover"]["facets"]:
        parts = [
            (unpacked(top["value"])[row, column], unpacked(top["percent"])[row, column])
            for top in facet["top"]
        ]
        named = [f"{facet['values'][value]} {part} %" for value, part in parts if part]
        said.append(", ".join(named) or "none")
    return said


def test_cells_are_the_tokens_of_each_expert() -> None:
    figure = heatmap(small())
    assert z_of(figure).tolist() == [[10, 10, 5, 7], [17, 15, 0, 0]]
    trace = figure["data"][0]
    assert trace["y"] == ["1", "3"]
    assert (trace["zmin"], trace["zmax"]) == (0, 17)
    assert trace["colorscale"] == "Cividis"


def test_the_pointer_is_told_who_feeds_a_cell() -> None:
    figure = heatmap(small())
    labels = [facet["label"] for facet in figure["hover"]["facets"]]
    assert labels == ["Spoken language", "Programming language", "Domain", "Source"]
    assert feeders_of(figure, 0, 0) == [
        "German 10 %", "Rust 50 %, Go 40 %", "Code 90 %, Law 10 %", "none",
    ]  # fmt: skip
    assert feeders_of(figure, 1, 3) == ["none"] * 4


def test_tokens_travel_once() -> None:
    assert heatmap(small())["hover"]["tokens"] is None
    figure = heatmap(small(), measure="share")
    assert unpacked(figure["hover"]["tokens"]).tolist() == [[10, 10, 5, 7], [17, 15, 0, 0]]


def test_experts_sorted_by_load_keep_their_number_and_feeders() -> None:
    figure = heatmap(small(), order="load")
    assert z_of(figure).tolist() == [[10, 10, 7, 5], [17, 15, 0, 0]]
    assert unpacked(figure["hover"]["experts"])[0].tolist() == [0, 1, 3, 2]
    assert feeders_of(figure, 0, 2) == feeders_of(heatmap(small()), 0, 3)
    assert "Place of the expert" in figure["layout"]["xaxis"]["title"]["text"]


def test_the_deviation_from_the_layers_mean_is_around_zero() -> None:
    figure = heatmap(small(), measure="deviation")
    assert z_of(figure)[1].tolist() == [1.125, 0.875, -1, -1]
    trace = figure["data"][0]
    assert trace["zmin"] == -trace["zmax"] == -1.125
    assert (trace["colorscale"][0][1], trace["colorscale"][-1][1]) == ("#2166ac", "#b35806")
    logarithmic = z_of(heatmap(small(), measure="deviation", scale="log"))
    assert logarithmic[0, 0] == pytest.approx(math.log2(1.25), rel=0.01)
    assert logarithmic[1, 2] == pytest.approx(math.log2(0.01), rel=0.01)


def test_the_difference_of_two_profiles_has_one_range_on_both_sides() -> None:
    one = small().where("domain", "code")
    figure = difference(one, small(), ("code", "all"), measure="tokens")
    assert z_of(figure).tolist() == [[1, 5, 5, 1], [7, 5, 0, 0]]
    trace = figure["data"][0]
    assert (trace["zmin"], trace["zmax"]) == (-7, 7)
    assert figure["hover"]["names"] == ["code", "all"]
    assert unpacked(figure["hover"]["others"]).tolist() == [[10, 10, 5, 7], [17, 15, 0, 0]]
    assert "all less code" in figure["layout"]["title"]["text"]
    shares = z_of(difference(one, small(), ("code", "all")))
    assert shares[0, 0] == pytest.approx(10 / 32 - 9 / 20, rel=0.01)


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_zero_has_no_sign_on_a_diverging_bar(scale: str) -> None:
    # What d3 formats with "+" has it at zero too.
    figures = [heatmap(small(), measure="deviation", scale=scale)]
    figures += [difference(small(), small(), ("a", "b"), measure=m) for m in ("tokens", "share")]
    for figure in figures:
        assert "+" not in figure["data"][0]["colorbar"]["tickformat"]


def test_shares_and_mass() -> None:
    share = z_of(heatmap(small(), measure="share"))[0]
    assert share.tolist() == pytest.approx([0.3125, 0.3125, 0.15625, 0.21875], rel=0.005)
    assert z_of(heatmap(small(), measure="mass"))[0].tolist() == [5, 5, 2.5, 3.5]


def test_the_logarithmic_scale_keeps_zero_and_labels_tokens() -> None:
    figure = heatmap(small(), scale="log")
    assert z_of(figure)[1] == pytest.approx([math.log10(18), math.log10(16), 0, 0], rel=0.005)
    bar = figure["data"][0]["colorbar"]
    assert bar["ticktext"] == ["0", "1", "10"]
    assert bar["tickvals"] == pytest.approx([0, math.log10(2), math.log10(11)])
    shares = heatmap(small(), measure="share", scale="log")["data"][0]["colorbar"]
    assert shares["ticktext"] == ["0.00%", "0.01%", "0.10%", "1.00%", "10.00%"]


def test_two_heatmaps_can_have_one_range() -> None:
    assert heatmap(small(), largest=100)["data"][0]["zmax"] == 100
    logarithmic = heatmap(small(), largest=99, scale="log")["data"][0]["zmax"]
    assert logarithmic == pytest.approx(2)


def test_axes_and_colours_have_titles_and_the_ground_is_the_pages() -> None:
    figure = heatmap(small(), measure="share", font_colour="#eee")
    layout = figure["layout"]
    assert layout["xaxis"]["title"]["text"] == "Expert"
    assert layout["yaxis"]["title"]["text"] == "Decoder layer"
    assert figure["data"][0]["colorbar"]["title"]["text"] == "Share of the layer's routed tokens"
    assert layout["font"]["color"] == "#eee"
    assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"


def test_a_dense_model_gives_an_empty_figure() -> None:
    figure = json.loads(json.dumps(heatmap(dense())))
    assert figure["data"][0]["y"] == []
    assert json.loads(json.dumps(difference(dense(), dense(), ("a", "b"))))["hover"]["facets"] == []


def test_the_largest_model_fits_the_wire() -> None:
    for measure in ("tokens", "share", "mass", "deviation"):
        figure = heatmap(large(62, 256), measure=measure, scale="log")
        document = json.dumps(figure, separators=(",", ":")).encode()
        assert len(gzip.compress(document, 9)) < 150_000


def test_plotly_accepts_the_figure() -> None:
    plotly = pytest.importorskip("plotly.graph_objects")
    figure = heatmap(small())
    figure = plotly.Figure({"data": figure["data"], "layout": figure["layout"]})
    assert figure.data[0].type == "heatmap"


def test_a_typed_array_is_little_endian() -> None:
    assert typed(np.array([1, 256]), "u2") == {
        "dtype": "u2",
        "bdata": base64.b64encode(b"\x01\x00\x00\x01").decode(),
    }

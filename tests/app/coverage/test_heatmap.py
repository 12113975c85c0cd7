from __future__ import annotations

import base64
import gzip
import json
import math
from typing import Any

import numpy as np
import pytest

from app.coverage.heatmap import heatmap, typed
from tests.app.coverage.profiles import dense, large, small


def z_of(figure: dict[str, Any]) -> np.ndarray:
    z = figure["data"][0]["z"]
    rows, columns = (int(size) for size in z["shape"].split(","))
    return np.frombuffer(base64.b64decode(z["bdata"]), dtype="<f4").reshape(rows, columns)


def test_cells_are_the_tokens_of_each_expert() -> None:
    figure = heatmap(small())
    assert z_of(figure).tolist() == [[10, 10, 5, 7], [17, 15, 0, 0]]
    trace = figure["data"][0]
    assert trace["y"] == ["1", "3"]
    assert (trace["zmin"], trace["zmax"]) == (0, 17)
    assert trace["colorscale"] == "Cividis"


def test_the_hover_says_expert_tokens_share_rank_and_feeders() -> None:
    cell = heatmap(small())["data"][0]["customdata"][0][0]
    assert cell == [0, 10, 0.3125, 1, "German 10 %", "Rust 50 %, Go 40 %", "Code 90 %, Law 10 %"]
    nobody = heatmap(small())["data"][0]["customdata"][1][3]
    assert nobody == [3, 0, 0.0, 4, "none", "none", "none"]


def test_experts_sorted_by_load_keep_their_number_and_feeders() -> None:
    figure = heatmap(small(), order="load")
    assert z_of(figure).tolist() == [[10, 10, 7, 5], [17, 15, 0, 0]]
    plain, sorted_ = (
        heatmap(small(), order=o)["data"][0]["customdata"] for o in ("expert", "load")
    )
    assert [cell[0] for cell in sorted_[0]] == [0, 1, 3, 2]
    assert sorted_[0][2] == plain[0][3]
    assert "Place of the expert" in figure["layout"]["xaxis"]["title"]["text"]


def test_shares_and_mass() -> None:
    assert z_of(heatmap(small(), measure="share"))[0].tolist() == [0.3125, 0.3125, 0.15625, 0.21875]
    assert z_of(heatmap(small(), measure="mass"))[0].tolist() == [5, 5, 2.5, 3.5]


def test_the_logarithmic_scale_keeps_zero_and_labels_tokens() -> None:
    figure = heatmap(small(), scale="log")
    assert z_of(figure)[1] == pytest.approx([math.log10(18), math.log10(16), 0, 0])
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
    assert figure["data"][0]["customdata"] == []


def test_the_largest_model_fits_the_wire() -> None:
    document = json.dumps(heatmap(large(62, 256)), separators=(",", ":")).encode()
    assert len(gzip.compress(document, 6)) < 150_000


def test_plotly_accepts_the_figure() -> None:
    plotly = pytest.importorskip("plotly.graph_objects")
    figure = plotly.Figure(heatmap(small()))
    assert figure.data[0].type == "heatmap"


def test_a_typed_array_is_little_endian() -> None:
    assert typed(np.array([1, 256]), "u2") == {
        "dtype": "u2",
        "bdata": base64.b64encode(b"\x01\x00\x00\x01").decode(),
    }
